//! The contract of a store. Must not know any database, any policy, or telemetry.
//!
//! **Each call is one atomic, bounded step**: state, index, idempotency record and counts change together or not at all. Once
//! a call has returned, its changes are as durable as the store can make them. The caller decides (see
//! [`lifecycle`](crate::lifecycle)), and the store writes, guarded by the lease. No call updates a whole job.
//!
//! Every store keeps these rules, besides those documented at each call:
//!
//! - **The store's clock decides.** Callers pass durations, never points in time, except as a range of times that a list filters by.
//! - **Only `reclaim` takes a lease away.** Expiry by itself does nothing: a late `renew` or `settle` of the current lease
//!   is accepted.
//! - **Calls are idempotent.** The reply to any call may be lost, so each call may be repeated. One exception is allowed: a
//!   repeated `report` may append its log lines twice.
//! - **Calls are bounded in time.** A store that cannot be reached returns an error within seconds.
//! - **Each job is in exactly one index**, that of its state and type. No call scans all jobs.
//! - **A job past `expires_at` is `Gone` to readers**, pruned or not.
//! - **Order.** Acceptance gives a job a unique order number that grows with time. Runnable jobs start by priority, then by
//!   order number. Promotion sets the order number to the due time; a released or recovered job keeps its order number.

mod client;
mod forward;
mod health;
mod hints;
mod histogram;
mod lease;
mod list;
mod read;
mod shared;
mod worker;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use client::{CancelOutcome, IdempotencyKey, InsertOutcome, NewJob, RetryAs, RetryOutcome};
#[doc(hidden)]
pub use forward::__private;
pub use forward::StoreOperation;
pub use health::StoreHealth;
pub use hints::{Hint, hint_stream};
pub use histogram::Histogram;
pub use lease::{JobLeases, Lease, LeaseToken};
pub use list::{Cursor, Filtered, ListFilter, ListPage, Page};
pub use read::{JobLookup, LiveWorker, MinuteStats, Stats, StatsQuery, TypeCutoffs, TypeStats};
pub use shared::{DocVersion, Document, PutOutcome, Role, RoleToken, SharedState};
pub use worker::{
    Attempt, Claim, Claimed, Fenced, Heartbeat, Outcome, Reclaim, Reclaimed, Recovered, Renewed, Report,
    ReportedProgress, Settled, Settlement, TypeCapacity, TypeQuota, WorkerInfo, WorkerSlots,
};

pub use crate::job::WorkerId;
use crate::job::{ErrorRecord, JobId, LogLine};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a call failed. An outcome that a caller can cause is not an error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, is full or read-only, or did not answer in time. A repeat may succeed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The record of this job cannot be decoded. Calls for other jobs are not affected, and a repeat fails again.
    #[error("the stored job cannot be read: {0}")]
    Unreadable(String),
    /// Stored data cannot be decoded.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The driver failed permanently.
    #[error("the store failed: {source}")]
    Backend {
        /// The driver's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether a repeat of the call may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A store of jobs.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Accepts a job. Checks, in this order: the idempotency key, the id, the queue limit.
    ///
    /// If the same owner used the key before for this type, or if the id is known, returns that job when owner and
    /// fingerprint are equal, else [`InsertOutcome::Conflict`].
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome>;

    /// Returns a job.
    async fn get(&self, id: JobId) -> Result<JobLookup>;

    /// Returns the versions of these jobs, in order; `None` for an unknown or expired job.
    async fn versions(&self, ids: &[JobId]) -> Result<Vec<Option<u64>>>;

    /// Returns a page of jobs, without their results. No job is on two pages. A page checks at most
    /// [`PAGE_JOBS`](crate::limits::PAGE_JOBS) index entries, whether they match the filter or not.
    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage>;

    /// Returns the job's log lines after line `after`, oldest first, at most `limit`.
    async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>>;

    /// Returns a job's payload. `None` for an unknown or expired job, and for a completed one, whose payload is deleted.
    async fn payload(&self, id: JobId) -> Result<Option<Bytes>>;

    /// Returns counts, ages, live workers and minute buckets.
    async fn stats(&self, query: &StatsQuery) -> Result<Stats>;

    /// Claims runnable jobs under a lease: promotes due jobs, at most [`SWEEP_JOBS`](crate::limits::SWEEP_JOBS), then starts
    /// jobs of all types in `quotas` by priority and order number. Quarantines jobs that cannot be decoded.
    async fn claim(&self, claim: &Claim) -> Result<Claimed>;

    /// Records a worker's heartbeat and renews its leases until `lease` from now. Workers call it on every tick, also without
    /// leases. Answers in the order of `leases`.
    async fn renew(&self, heartbeat: &Heartbeat, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>>;

    /// Stores progress and log lines of running attempts. Answers in the order of `reports`.
    async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>>;

    /// Ends attempts. After a cancel request, every outcome but `Completed` is stored as Canceled with the settlement's
    /// `if_canceled`. A repeat by the current or the last lease changes nothing and returns the same answer. Answers in the
    /// order of `settlements`.
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>>;

    /// Cancels a waiting job, or requests the cancellation of a running one.
    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome>;

    /// Makes a new job from a Failed or Canceled one. A repeat returns the same new job. Payload, type, terms, fingerprint and
    /// owner are copied; the idempotency key is not.
    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome>;

    /// Requeues jobs whose lease expired, oldest first, at most [`SWEEP_JOBS`](crate::limits::SWEEP_JOBS). Each counts a loss.
    /// A job beyond its `max_losses` fails, and a job with a cancel request is canceled.
    ///
    /// If no sweep ran for a whole lease, all workers may have been cut off. Sweeps then take no lease for one more lease, so
    /// that living workers can renew first.
    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed>;

    /// Replaces expired jobs by tombstones and deletes tombstones past their time, at most `limit` in total. Stops at the first
    /// unexpired job of an index. Returns how many; fewer than `limit` means that none is left.
    async fn prune(&self, limit: u32) -> Result<u32>;

    /// The hints of all changes from now on.
    fn hints(&self) -> BoxStream<'static, Hint>;

    /// Checks that the store can be read and written, without leaving anything behind.
    async fn probe(&self) -> Result<()>;

    /// Reports the store's own condition, such as durability settings and free space, without leaving anything behind. Defaults
    /// to an empty report. A store that cannot be used returns an error.
    async fn health(&self) -> Result<StoreHealth> {
        Ok(StoreHealth::default())
    }

    /// The kind of store, as metrics and health checks name it: `memory`, `sqlite`, `redis`, `postgres`. A decorator returns the kind of
    /// its inner store.
    fn kind(&self) -> &'static str;
}

/// A whole store. Implemented for every type that implements both traits.
pub trait Store: JobStore + SharedState {}

impl<T: JobStore + SharedState + ?Sized> Store for T {}

#[async_trait]
impl<T: JobStore + ?Sized> JobStore for Arc<T> {
    crate::forward_store_calls!(self => **self; job_calls, hints, kind);
}
