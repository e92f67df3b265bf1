//! A store around a store that fails on purpose, and one that tries again. Must not know any store.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobStore, SharedState, Store, StoreError, forward_store_calls,
    store::{DocVersion, InsertOutcome, NewJob, PutOutcome, Result, RoleToken, StoreOperation},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// When a call fails.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// It never reaches the store.
    Before,
    /// It was applied, and the reply is lost.
    After,
    /// It never reaches the store, and never will: the driver refuses it for good.
    Never,
    /// The driver panics before it reaches the store: a bug that callers should survive.
    Panic,
    /// It reaches the store half a second late, past calls that were made after it.
    Late,
}

/// How late [`When::Late`] is.
const LATE: Duration = Duration::from_millis(500);

/// What goes wrong by chance.
#[derive(Debug)]
struct Chance {
    before: f64,
    after: f64,
    delay: Duration,
    random: StdRng,
}

/// A store that fails on purpose: by chance, by script, or altogether.
pub struct FlakyStore {
    inner: Arc<dyn Store>,
    out: AtomicBool,
    faults: AtomicU64,
    script: Mutex<Vec<(StoreOperation, When)>>,
    chance: Mutex<Chance>,
}

impl FlakyStore {
    /// A store that never fails until told.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let chance = Chance { before: 0.0, after: 0.0, delay: Duration::ZERO, random: StdRng::seed_from_u64(0) };
        Self {
            inner,
            out: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            script: Mutex::default(),
            chance: Mutex::new(chance),
        }
    }

    /// Fails calls by chance: with probability `before` instead of applying them, with `after` once applied.
    #[must_use]
    pub fn random(self, seed: u64, before: f64, after: f64) -> Self {
        {
            let mut chance = lock(&self.chance);
            (chance.before, chance.after, chance.random) = (before, after, StdRng::seed_from_u64(seed));
        }
        self
    }

    /// Holds each call up for a random time up to `most`.
    #[must_use]
    pub fn delays(self, most: Duration) -> Self {
        lock(&self.chance).delay = most;
        self
    }

    /// The next call of this kind fails. Several add up, in order.
    pub fn fail_next(&self, operation: StoreOperation, when: When) {
        lock(&self.script).push((operation, when));
    }

    /// From now on every call fails, or none does because of this.
    pub fn outage(&self, out: bool) {
        self.out.store(out, Ordering::SeqCst);
    }

    /// No more faults by chance: for the part of a test that looks at what is left.
    pub fn calm(&self) {
        let mut chance = lock(&self.chance);
        (chance.before, chance.after) = (0.0, 0.0);
    }

    /// How many calls failed so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    async fn around<'a, T>(
        &self,
        operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let (fault, delay) = self.draw(operation);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let name = operation.as_str();
        match fault {
            Some(When::Before) => return Err(self.fault(operation, "the call was lost")),
            Some(When::Never) => return Err(StoreError::Backend { source: format!("{name} is refused").into() }),
            Some(When::Panic) => panic!("{name} panics on purpose"),
            Some(When::After | When::Late) | None => {}
        }
        let answer = call().await?;
        match fault {
            Some(_) => Err(self.fault(operation, "the reply was lost")),
            None => Ok(answer),
        }
    }

    fn fault(&self, operation: StoreOperation, what: &str) -> StoreError {
        self.faults.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable(format!("{}: {what}", operation.as_str()))
    }

    /// Decides the fate of a call.
    fn draw(&self, operation: StoreOperation) -> (Option<When>, Duration) {
        if self.out.load(Ordering::SeqCst) {
            return (Some(When::Before), Duration::ZERO);
        }
        let mut script = lock(&self.script);
        if let Some(at) = script.iter().position(|(scripted, _)| *scripted == operation) {
            return match script.remove(at).1 {
                When::Late => (None, LATE),
                when => (Some(when), Duration::ZERO),
            };
        }
        let mut chance = lock(&self.chance);
        let draw: f64 = chance.random.random();
        let most = chance.delay;
        let delay = if most.is_zero() { most } else { chance.random.random_range(Duration::ZERO..=most) };
        let fault = match draw {
            x if x < chance.before => Some(When::Before),
            x if x < chance.before + chance.after => Some(When::After),
            _ => None,
        };
        (fault, delay)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store that repeats what failed for a while, as a patient caller does. Answers are only the same as without
/// faults if nothing fails after it was applied.
pub struct Retrying<S>(pub S);

/// More than any sane fault rate needs.
const TRIES: u32 = 200;

impl<S: Store> Retrying<S> {
    async fn repeat<'a, T>(&self, _: StoreOperation, call: impl Fn() -> BoxFuture<'a, Result<T>> + Send) -> Result<T> {
        for _ in 1..TRIES {
            match call().await {
                Err(error) if error.is_transient() => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
        call().await
    }
}

#[async_trait]
impl JobStore for FlakyStore {
    forward_store_calls!(self.around => self.inner; job_calls);
    forward_store_calls!(self => self.inner; hints, kind);
}

#[async_trait]
impl SharedState for FlakyStore {
    forward_store_calls!(self.around => self.inner; shared_calls);
}

#[async_trait]
impl<S: Store> JobStore for Retrying<S> {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        self.repeat(StoreOperation::Insert, || self.0.insert(job.clone())).await
    }

    forward_store_calls!(self.repeat => self.0;
        get, versions, list, logs, stats, claim, renew, report, settle, cancel, retry, reclaim, prune, probe);
    forward_store_calls!(self => self.0; hints, kind);
}

#[async_trait]
impl<S: Store> SharedState for Retrying<S> {
    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        let call = || self.0.put_document(name, expected, bytes.clone(), role);
        self.repeat(StoreOperation::PutDocument, call).await
    }

    forward_store_calls!(self.repeat => self.0; role, document);
}
