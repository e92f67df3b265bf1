//! A store in this process's memory. Must not know policy, handlers or telemetry.
//!
//! One mutex, held for microseconds and never over an await, makes each call one atomic step. Every index is sorted, so the
//! cost of a call grows with the logarithm of the number of jobs. [`lifecycle`](crate::lifecycle) decides.

mod index;
mod insert;
mod job;
mod lease;
mod list;
mod read;
mod shared;
mod state;
mod sweep;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    job::{ErrorRecord, JobId, LogLine},
    store::{
        CancelOutcome, Claim, Claimed, DocVersion, Document, Fenced, Heartbeat, Hint, InsertOutcome, JobLookup,
        JobStore, Lease, ListFilter, ListPage, NewJob, Page, PutOutcome, Reclaim, Reclaimed, Renewed, Report, Result,
        RetryAs, RetryOutcome, Role, RoleToken, Settled, Settlement, SharedState, Stats, StatsQuery, hint_stream,
    },
    time::{Clock, SystemClock, Timestamp},
};
use shared::Shared;
use state::State;

/// Number of hints by which a subscriber may fall behind before it gets [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// A store in this process's memory. Its jobs are lost with the process: for tests, demos and work that may be lost.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_endpoints_core::{MemoryStore, store::{JobStore, StatsQuery}};
/// let store = MemoryStore::new();
/// assert!(store.stats(&StatsQuery::default()).await?.types.is_empty());
/// # Ok(()) }
/// ```
pub struct MemoryStore {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
    shared: Mutex<Shared>,
    hints: broadcast::Sender<Hint>,
}

impl MemoryStore {
    /// An empty store on a [`SystemClock`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::default())
    }

    /// An empty store on this clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        Self { clock: Box::new(clock), state: Mutex::default(), shared: Mutex::default(), hints }
    }

    /// Runs one atomic step, then publishes its hints. The time is read under the lock, so that times follow the order of
    /// the steps. Hints are published after its release, since waking subscribers takes time.
    fn step<T>(&self, step: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let mut state = lock(&self.state);
        let answer = step(&mut state, self.clock.now());
        let work = std::mem::take(&mut state.work);
        let changed: Option<Arc<[JobId]>> = (!state.changed.is_empty()).then(|| state.changed.as_slice().into());
        state.changed.clear();
        drop(state);
        // `send` fails if there is no subscriber, which is fine.
        work.into_iter().for_each(|name| drop(self.hints.send(Hint::Work(name))));
        changed.into_iter().for_each(|ids| drop(self.hints.send(Hint::Jobs(ids))));
        answer
    }
}

/// Number of attempts to take the lock, a few microseconds in total, before the thread sleeps. A step is shorter than that,
/// and a sleeping thread makes each release of the lock a system call.
const TRIES: u32 = 100;

/// Takes a lock, also if it is poisoned: steps validate before they write, so the state is whole after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for tries in 0..TRIES {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => (0..tries.min(16)).for_each(|_| std::hint::spin_loop()),
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl JobStore for MemoryStore {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        // Allocated before the lock is taken.
        let memory = Box::new_uninit();
        Ok(self.step(|state, now| state.insert(job, memory, now)))
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        Ok(self.step(|state, now| state.lookup(id, now)))
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        Ok(self.step(|state, now| ids.iter().map(|id| state.readable(*id, now).map(|job| job.version)).collect()))
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        Ok(self.step(|state, now| state.list(filter, page, now)))
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        Ok(self.step(|state, now| state.logs(id, after, limit, now)))
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>> {
        Ok(self.step(|state, now| state.payload(id, now)))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        Ok(self.step(|state, now| state.stats(query, now)))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        Ok(self.step(|state, now| state.claim(claim, now)))
    }

    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        Ok(self.step(|state, now| {
            state.heartbeat(heartbeat, now);
            leases.iter().map(|held| state.renew(*held, now + lease)).collect()
        }))
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        Ok(self.step(|state, now| reports.iter().map(|report| state.report(report, now)).collect()))
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        Ok(self.step(|state, now| settlements.iter().map(|settlement| state.settle(settlement, now)).collect()))
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        Ok(self.step(|state, now| state.cancel(id, error, now)))
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        Ok(self.step(|state, now| state.retry(id, new, now)))
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        Ok(self.step(|state, now| state.reclaim(reclaim, now)))
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        Ok(self.step(|state, now| state.prune(limit, now)))
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        hint_stream(self.hints.subscribe())
    }

    async fn probe(&self) -> Result<()> {
        self.step(|_, _| ());
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[async_trait]
impl SharedState for MemoryStore {
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        Ok(lock(&self.shared).role(name, holder, ttl, self.clock.now()))
    }

    async fn document(&self, name: &str) -> Result<Option<Document>> {
        Ok(lock(&self.shared).document(name))
    }

    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        Ok(lock(&self.shared).put(name, expected, bytes, role, self.clock.now()))
    }
}
