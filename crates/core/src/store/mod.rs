//! The contract of a store. Must not know any database, any policy, or telemetry.
//!
//! **Each call is one atomic, bounded step**: state, index, idempotency record and counts move together or
//! not at all, and a call that returned is durable as far as the store ever is. The caller decides (see
//! [`lifecycle`](crate::lifecycle)), the store writes, guarded by the lease. There is no "update the job".
//!
//! The rules that every store keeps, beside those at each call:
//!
//! - **The store's clock decides.** Callers pass durations, never points in time.
//! - **A lease is taken away by `reclaim` alone.** Expiry by itself does nothing: a late `renew` or `settle` of
//!   the current lease is accepted.
//! - **A repeat is harmless.** The reply to any call may be lost, so each may come twice. (One exception is allowed:
//!   a repeated `report` may append its log lines twice.)
//! - **Each call ends.** A store that cannot be reached says so in seconds; nothing waits for ever.
//! - **Each job is in exactly one index**, the one of its state and type; nothing scans all jobs.
//! - **A job past `expires_at` reads as gone**, pruned or not.
//! - **Orders.** Acceptance gives a job an order number that is unique and carries time; runnable jobs go by
//!   priority, then order. A promoted job takes its due time as order; a released or recovered one keeps its place.

mod client;
mod forward;
mod hints;
mod lease;
mod read;
mod shared;
mod worker;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use client::{CancelOutcome, IdempotencyKey, InsertOutcome, NewJob, RetryAs, RetryOutcome};
#[doc(hidden)]
pub use forward::__private;
pub use forward::StoreOperation;
pub use hints::{Hint, hint_stream};
pub use lease::{JobLeases, Lease, LeaseToken};
pub use read::{
    BOUNDS, Cursor, Histogram, JobLookup, ListFilter, ListPage, LiveWorker, MinuteStats, Page, Stats, StatsQuery,
    TypeCutoffs, TypeStats,
};
pub use shared::{DocVersion, Document, PutOutcome, Role, RoleToken, SharedState};
pub use worker::{
    Attempt, Claim, Claimed, Fenced, Heartbeat, Outcome, Reclaim, Reclaimed, Recovered, Renewed, Report,
    ReportedProgress, Settled, Settlement, TypeCapacity, TypeQuota, WorkerId, WorkerSlots,
};

use crate::job::{ErrorRecord, JobId, LogLine};

/// What store calls return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a store could not do what it was asked. An outcome that a caller can cause is never an error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is full or read-only, or did not answer in time: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Something stored cannot be read.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// Its driver failed in a way that waiting will not mend.
    #[error("the store failed: {source}")]
    Backend {
        /// The driver's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Where jobs live.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Accepts a job, or says why not. Checks, in this order: the idempotency key, the id, the queue limit.
    ///
    /// A key that the same owner and name used before answers with that job, a known id with that job,
    /// if owner and fingerprint are the same; else [`InsertOutcome::Conflict`].
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome>;

    /// A job as it is now.
    async fn get(&self, id: JobId) -> Result<JobLookup>;

    /// The versions of these jobs, in order; `None` for a job that is not there.
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>>;

    /// A page of jobs, without their results. No job comes twice over the pages.
    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage>;

    /// Lines that the job's handler logged, after line `after`, oldest first.
    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>>;

    /// Counts, ages, live workers and minute slots.
    async fn stats(&self, query: &StatsQuery) -> Result<Stats>;

    /// Takes runnable jobs under a lease: promotes due ones (bounded), then takes by priority and order,
    /// merged over the wanted types. Counts the attempt. Jobs that cannot be read are put aside, never in the way.
    async fn claim(&self, claim: &Claim) -> Result<Claimed>;

    /// The heartbeat of a worker, and of its leases, which then last `lease` from now. Comes on every tick, also
    /// without leases. Answers in the order of `leases`.
    async fn renew(&self, beat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>>;

    /// Progress and log lines of running attempts.
    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>>;

    /// Ends attempts. If a cancel was requested, whatever is not `Completed` is stored as Canceled with the
    /// settlement's `if_canceled`. A repeat by the current or the last lease changes nothing and answers as before.
    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>>;

    /// Cancels a job that does not run; asks for it if it does.
    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome>;

    /// Makes a new job out of one that failed or was canceled, once: a repeat answers with the same new job.
    /// Body, type, terms and owner are copied, an idempotency key is not.
    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome>;

    /// Takes expired leases away, oldest first, at most [`SWEEP_JOBS`](crate::limits::SWEEP_JOBS): each counts a
    /// loss and is queued again in its old place, failed beyond its `max_losses`, or canceled if that was asked.
    ///
    /// If no sweep was recorded for a whole lease, everybody may have been cut off: it then takes nothing for
    /// one more lease, so that living workers can renew first.
    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed>;

    /// Cuts jobs past their retention to tombstones and forgets tombstones past theirs, at most `limit` in all;
    /// stops at the first unexpired job of an index. Returns how many; fewer than `limit` means none is left.
    async fn prune(&self, limit: u32) -> Result<u32>;

    /// What changes from now on.
    fn hints(&self) -> BoxStream<'static, Hint>;

    /// Whether the store can be read and written, without leaving anything behind.
    async fn probe(&self) -> Result<()>;

    /// What operators call this kind of store, in metrics and health checks: `memory`, `sqlite`, `redis`. A store around a
    /// store has its name.
    fn kind(&self) -> &'static str;
}

/// A whole store. Implemented for everything that implements its two halves.
pub trait Store: JobStore + SharedState {}

impl<T: JobStore + SharedState + ?Sized> Store for T {}

#[async_trait]
impl<T: JobStore + ?Sized> JobStore for Arc<T> {
    crate::forward_store_calls!(self => **self; job_calls, hints, kind);
}
