//! Decorators that fail on purpose, and that retry failed calls. Must not know any particular store.

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

/// How a call fails.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The call is lost before it reaches the store.
    Before,
    /// The call is applied, and its reply is lost.
    After,
    /// The driver refuses the call permanently.
    Never,
    /// The driver panics before the call reaches the store.
    Panic,
    /// The call reaches the store half a second late, after later calls, and succeeds.
    Late,
}

/// The delay of [`When::Late`].
const LATE: Duration = Duration::from_millis(500);

/// Random faults.
#[derive(Debug)]
struct Chance {
    before: f64,
    after: f64,
    delay: Duration,
    random: StdRng,
}

/// A decorator that fails on purpose: at random, by script, or during an outage.
pub struct FlakyStore {
    inner: Arc<dyn Store>,
    out: AtomicBool,
    faults: AtomicU64,
    script: Mutex<Vec<(StoreOperation, When)>>,
    chance: Mutex<Chance>,
}

impl FlakyStore {
    /// A decorator that does not fail yet.
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

    /// Fails calls at random: with probability `before` before they are applied, with probability `after` afterwards.
    #[must_use]
    pub fn random(self, seed: u64, before: f64, after: f64) -> Self {
        {
            let mut chance = lock(&self.chance);
            (chance.before, chance.after, chance.random) = (before, after, StdRng::seed_from_u64(seed));
        }
        self
    }

    /// Delays each call by a random time up to `max`.
    #[must_use]
    pub fn delays(self, max: Duration) -> Self {
        lock(&self.chance).delay = max;
        self
    }

    /// Fails the next call of this operation. Faults for one operation queue up.
    pub fn fail_next(&self, operation: StoreOperation, when: When) {
        lock(&self.script).push((operation, when));
    }

    /// Starts or ends an outage. Each call fails before it reaches the store, unless a scripted fault comes first.
    pub fn outage(&self, out: bool) {
        self.out.store(out, Ordering::SeqCst);
    }

    /// Stops random faults, so that a test can check the final state.
    pub fn calm(&self) {
        let mut chance = lock(&self.chance);
        (chance.before, chance.after) = (0.0, 0.0);
    }

    /// Number of calls that failed so far.
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

    fn fault(&self, operation: StoreOperation, reason: &str) -> StoreError {
        self.faults.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable(format!("{}: {reason}", operation.as_str()))
    }

    /// Chooses the fault and the delay of a call.
    fn draw(&self, operation: StoreOperation) -> (Option<When>, Duration) {
        let mut script = lock(&self.script);
        if let Some(at) = script.iter().position(|(scripted, _)| *scripted == operation) {
            return match script.remove(at).1 {
                When::Late => (None, LATE),
                when => (Some(when), Duration::ZERO),
            };
        }
        if self.out.load(Ordering::SeqCst) {
            return (Some(When::Before), Duration::ZERO);
        }
        let mut chance = lock(&self.chance);
        let draw: f64 = chance.random.random();
        let max = chance.delay;
        let delay = if max.is_zero() { max } else { chance.random.random_range(Duration::ZERO..=max) };
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

/// A decorator that repeats calls that failed transiently. Answers equal those without faults only if no call fails after
/// it was applied.
pub struct Retrying<S>(pub S);

/// More than the fault rates of tests need.
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
        get, versions, list, logs, payload, stats, claim, renew, report, settle, cancel, retry, reclaim, prune, probe, health);
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
