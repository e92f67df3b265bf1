//! The store that needs nothing: every job in this process, and lost with it.
//!
//! One mutex, held for microseconds and never over an await, makes each call one atomic step. Every index is
//! ordered, so that a call costs the same with a million jobs as with a thousand. Decisions are
//! [`lifecycle`](crate::lifecycle)'s; nothing here knows policy, handlers or telemetry.

mod index;
mod insert;
mod job;
mod lease;
mod read;
mod shared;
mod state;
mod sweep;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

use crate::{
    job::{ErrorRecord, JobId, LogLine},
    store::{
        Beat, Cancel, Claim, Claimed, DocVersion, Document, Fenced, Hint, Insert, JobStore, Lease, ListFilter,
        ListPage, Lookup, NewJob, Page, Put, Reclaim, Reclaimed, Renewed, Report, Result, Retry, RetryAs, Role,
        RoleToken, Settle, Settled, SharedState, Stats, StatsQuery,
    },
    time::{Clock, SystemClock, Timestamp},
};
use shared::Shared;
use state::State;

/// Hints that a slow listener may fall behind by before it is told [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// A store in this process's memory. Its jobs die with the process: for tests, demos and work that may be lost.
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
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::default())
    }

    /// An empty store on another clock, such as a test's.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        Self { clock: Box::new(clock), state: Mutex::new(State::new(hints.clone())), shared: Mutex::default(), hints }
    }

    /// The state and the time, read under the lock so that times are in the order of the calls.
    fn state(&self) -> (MutexGuard<'_, State>, Timestamp) {
        let state = lock(&self.state);
        let now = self.clock.now();
        (state, now)
    }
}

/// A panic under the lock would be a bug of ours that validates first and writes last; serving on is the better half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    async fn insert(&self, job: NewJob) -> Result<Insert> {
        let (mut state, now) = self.state();
        Ok(state.insert(job, now))
    }

    async fn get(&self, id: JobId) -> Result<Lookup> {
        let (state, now) = self.state();
        Ok(state.lookup(id, now))
    }

    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>> {
        let (state, now) = self.state();
        Ok(ids.iter().map(|id| state.readable(*id, now).map(|job| job.version)).collect())
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let (state, now) = self.state();
        Ok(state.list(filter, page, now))
    }

    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        let (state, now) = self.state();
        Ok(state.logs(id, after, limit, now))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        let (state, now) = self.state();
        Ok(state.stats(query, now))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let (mut state, now) = self.state();
        Ok(state.claim(claim, now))
    }

    async fn renew(&self, beat: &Beat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let (mut state, now) = self.state();
        state.beat(beat, now);
        Ok(leases.iter().map(|held| state.renew(*held, now + lease)).collect())
    }

    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        let (mut state, now) = self.state();
        Ok(reports.iter().map(|report| state.report(report, now)).collect())
    }

    async fn settle(&self, settles: &[Settle]) -> Result<Vec<Settled>> {
        let (mut state, now) = self.state();
        Ok(settles.iter().map(|settle| state.settle(settle, now)).collect())
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<Cancel> {
        let (mut state, now) = self.state();
        Ok(state.cancel(id, error, now))
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<Retry> {
        let (mut state, now) = self.state();
        Ok(state.retry(id, new, now))
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let (mut state, now) = self.state();
        Ok(state.reclaim(reclaim, now))
    }

    async fn prune(&self, limit: u32) -> Result<u32> {
        let (mut state, now) = self.state();
        Ok(state.prune(limit, now))
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        stream::unfold(self.hints.subscribe(), |mut hints| async move {
            match hints.recv().await {
                Ok(hint) => Some((hint, hints)),
                Err(RecvError::Lagged(_)) => Some((Hint::Lagged, hints)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    async fn probe(&self) -> Result<()> {
        drop(self.state());
        Ok(())
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
    ) -> Result<Put> {
        Ok(lock(&self.shared).put(name, expected, bytes, role, self.clock.now()))
    }
}
