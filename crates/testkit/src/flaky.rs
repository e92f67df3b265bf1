//! A store around a store that fails on purpose, and one that tries again. Must not know any store.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStore, SharedState, Store, StoreError,
    job::{ErrorRecord, LogLine},
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup, Lease,
        ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result, RetryAs,
        RetryOutcome, Role, RoleToken, Settled, Settlement, Stats, StatsQuery,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// A call of a store.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its call")]
pub enum Op {
    Insert,
    Get,
    Versions,
    List,
    Logs,
    Stats,
    Claim,
    Renew,
    Report,
    Settlement,
    Cancel,
    Retry,
    Reclaim,
    Prune,
    Probe,
    Role,
    Document,
    PutDocument,
}

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
    script: Mutex<Vec<(Op, When)>>,
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
    pub fn fail_next(&self, op: Op, when: When) {
        lock(&self.script).push((op, when));
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

    async fn around<T: Send>(&self, op: Op, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let (fault, delay) = self.draw(op);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match fault {
            Some(When::Before) => return Err(self.fault(op, "the call was lost")),
            Some(When::Never) => return Err(StoreError::Backend { source: format!("{op:?} is refused").into() }),
            Some(When::Panic) => panic!("{op:?} panics on purpose"),
            Some(When::After | When::Late) | None => {}
        }
        let answer = call.await?;
        match fault {
            Some(_) => Err(self.fault(op, "the reply was lost")),
            None => Ok(answer),
        }
    }

    fn fault(&self, op: Op, what: &str) -> StoreError {
        self.faults.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable(format!("{op:?}: {what}"))
    }

    /// Decides the fate of a call.
    fn draw(&self, op: Op) -> (Option<When>, Duration) {
        if self.out.load(Ordering::SeqCst) {
            return (Some(When::Before), Duration::ZERO);
        }
        let mut script = lock(&self.script);
        if let Some(at) = script.iter().position(|(scripted, _)| *scripted == op) {
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

/// A method cannot take the call: a closure's future that borrows has no name that is known to be `Send`.
macro_rules! repeat {
    ($call:expr) => {{
        for _ in 1..TRIES {
            match $call.await {
                Err(error) if error.is_transient() => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
        $call.await
    }};
}

#[async_trait]
impl JobStore for FlakyStore {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        self.around(Op::Insert, self.inner.insert(job)).await
    }
    async fn get(&self, id: JobId) -> Result<JobLookup> {
        self.around(Op::Get, self.inner.get(id)).await
    }
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        self.around(Op::Versions, self.inner.versions(ids)).await
    }
    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        self.around(Op::List, self.inner.list(filter, page)).await
    }
    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        self.around(Op::Logs, self.inner.logs(id, after, limit)).await
    }
    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        self.around(Op::Stats, self.inner.stats(query)).await
    }
    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.around(Op::Claim, self.inner.claim(claim)).await
    }
    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        self.around(Op::Renew, self.inner.renew(beat, leases, lease)).await
    }
    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        self.around(Op::Report, self.inner.report(reports)).await
    }
    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        self.around(Op::Settlement, self.inner.settle(settles)).await
    }
    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        self.around(Op::Cancel, self.inner.cancel(id, error)).await
    }
    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        self.around(Op::Retry, self.inner.retry(id, new)).await
    }
    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        self.around(Op::Reclaim, self.inner.reclaim(reclaim)).await
    }
    async fn prune(&self, limit: u32) -> Result<u32> {
        self.around(Op::Prune, self.inner.prune(limit)).await
    }
    async fn probe(&self) -> Result<()> {
        self.around(Op::Probe, self.inner.probe()).await
    }
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn hints(&self) -> BoxStream<'static, Hint> {
        self.inner.hints()
    }
}

#[async_trait]
impl SharedState for FlakyStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        self.around(Op::Role, self.inner.role(name, holder, ttl)).await
    }
    async fn document(&self, name: &str) -> Result<Option<Document>> {
        self.around(Op::Document, self.inner.document(name)).await
    }
    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        self.around(Op::PutDocument, self.inner.put_document(name, expected, bytes, role)).await
    }
}

#[async_trait]
impl<S: Store> JobStore for Retrying<S> {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        repeat!(self.0.insert(job.clone()))
    }
    async fn get(&self, id: JobId) -> Result<JobLookup> {
        repeat!(self.0.get(id))
    }
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        repeat!(self.0.versions(ids))
    }
    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        repeat!(self.0.list(filter, page))
    }
    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        repeat!(self.0.logs(id, after, limit))
    }
    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        repeat!(self.0.stats(query))
    }
    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        repeat!(self.0.claim(claim))
    }
    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        repeat!(self.0.renew(beat, leases, lease))
    }
    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        repeat!(self.0.report(reports))
    }
    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        repeat!(self.0.settle(settles))
    }
    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        repeat!(self.0.cancel(id, error))
    }
    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        repeat!(self.0.retry(id, new))
    }
    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        repeat!(self.0.reclaim(reclaim))
    }
    async fn prune(&self, limit: u32) -> Result<u32> {
        repeat!(self.0.prune(limit))
    }
    async fn probe(&self) -> Result<()> {
        repeat!(self.0.probe())
    }
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn hints(&self) -> BoxStream<'static, Hint> {
        self.0.hints()
    }
}

#[async_trait]
impl<S: Store> SharedState for Retrying<S> {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        repeat!(self.0.role(name, holder, ttl))
    }
    async fn document(&self, name: &str) -> Result<Option<Document>> {
        repeat!(self.0.document(name))
    }
    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        repeat!(self.0.put_document(name, expected, bytes.clone(), role))
    }
}
