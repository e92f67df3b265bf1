//! Arguments and answers of the calls that workers make: claim, renew, report, settle, reclaim.

use std::{fmt, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use super::{Lease, LeaseToken};
use crate::{
    job::{AttemptOutcome, ErrorRecord, JobId, JobName, JobStatus, LogLine, Priority, Progress, TraceContext},
    time::Timestamp,
};

/// A worker, fresh with every start of its process.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub Uuid);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A wish for jobs of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeQuota {
    /// The type.
    pub name: JobName,
    /// How many at most.
    pub max: u32,
    /// How long one attempt may take; kept with the attempt, to tell overdue ones.
    pub timeout: Duration,
}

/// Asks for jobs, against permits that the worker already holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who asks.
    pub worker: WorkerId,
    /// The token of all leases that this claim takes.
    pub token: LeaseToken,
    /// Which types, and how many of each.
    pub quotas: Vec<TypeQuota>,
    /// How many in all; never more than [`BATCH_JOBS`](crate::limits::BATCH_JOBS) are given.
    pub max: u32,
    /// How many bytes of payload; a larger single job goes alone.
    pub max_bytes: usize,
    /// How long the leases last unless renewed.
    pub lease: Duration,
}

/// A started attempt: all that its worker needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The right to write to it.
    pub lease: Lease,
    /// The job's type.
    pub name: JobName,
    /// 1 for the first.
    pub attempt: u32,
    /// Failures retried so far.
    pub retry_count: u32,
    /// Retries allowed.
    pub max_retries: u32,
    /// The job's priority.
    pub priority: Priority,
    /// What the submitter gave.
    pub payload: Bytes,
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// Since when it was runnable.
    pub runnable_since: Timestamp,
    /// When this attempt started.
    pub started_at: Timestamp,
    /// The trace that the submission belongs to.
    pub trace: Option<TraceContext>,
    /// The `traceparent` of the attempt before, if its worker told it.
    pub previous_span: Option<String>,
}

/// What a claim took.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// In the order in which they should start.
    pub attempts: Vec<Attempt>,
    /// When to ask again, from now: zero if runnable or due jobs of the wanted types were left, else when the next
    /// one is due; none if there is none.
    pub next_claim: Option<Duration>,
    /// The store's time.
    pub now: Timestamp,
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub worker: WorkerId,
    /// The types it has handlers for.
    pub types: Vec<TypeCapacity>,
    /// What its slots do.
    pub slots: WorkerSlots,
    /// How long it counts as alive without another beat; zero takes it off the list.
    pub ttl: Duration,
}

/// A type that a worker takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCapacity {
    /// The type.
    pub name: JobName,
    /// Attempts of it running in this worker.
    pub running: u32,
    /// How many it runs at once at most.
    pub limit: u32,
}

/// What the slots of a worker do.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSlots {
    /// Running a handler, or settling.
    pub busy: u32,
    /// Free.
    pub idle: u32,
    /// Held by a handler that was given up and cannot be stopped.
    pub leaked: u32,
}

/// What became of a lease to renew.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It lasts on.
    Held,
    /// It lasts on, and a caller asked to cancel the job.
    CancelRequested,
    /// It is somebody else's or nobody's: stop the handler.
    Lost,
}

/// Progress to store; the store adds its own time.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedProgress {
    /// Units done.
    pub completed: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
    /// 0 to 100, where known.
    pub percent: Option<f64>,
    /// What is being done.
    pub message: Option<String>,
}

impl ReportedProgress {
    /// The progress as readers see it, reported at `updated_at`.
    pub fn stored(&self, updated_at: Timestamp) -> Progress {
        let Self { completed, total, percent, message } = self.clone();
        Progress { completed, total, percent, message, updated_at }
    }
}

/// Progress and log lines of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Whose.
    pub lease: Lease,
    /// Replaces what was there; none leaves it.
    pub progress: Option<ReportedProgress>,
    /// Appended. Line number and attempt are set by the store.
    pub logs: Vec<LogLine>,
}

/// Whether a guarded write was applied.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It was.
    Applied,
    /// The lease is no longer yours.
    Lost,
}

/// How an attempt ended, as its worker decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result.
    Completed {
        /// The handler's JSON.
        result: Bytes,
    },
    /// It failed; run it again after `delay`.
    Retry {
        /// From now, by the store's clock.
        delay: Duration,
        /// Why.
        error: ErrorRecord,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
    /// The handler said that it is canceled.
    Canceled {
        /// Why.
        error: ErrorRecord,
    },
    /// The worker shuts down and gives it back.
    Released,
}

impl Outcome {
    /// How the attempt counts, unless a cancel request changes it.
    pub const fn kind(&self) -> AttemptOutcome {
        match self {
            Self::Completed { .. } => AttemptOutcome::Completed,
            Self::Retry { .. } => AttemptOutcome::Retried,
            Self::Failed { .. } => AttemptOutcome::Failed,
            Self::Canceled { .. } => AttemptOutcome::Canceled,
            Self::Released => AttemptOutcome::Released,
        }
    }
}

/// Ends one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Which.
    pub lease: Lease,
    /// How.
    pub outcome: Outcome,
    /// The error to store instead, if a cancel was requested and the outcome is not `Completed`.
    pub if_canceled: ErrorRecord,
    /// It ran longer than its type's `slow_after`; counted in the slot.
    pub slow: bool,
    /// The attempt's own `traceparent`, for the next attempt to link to.
    pub span: Option<String>,
    /// The attempt's last progress. Replaces what was there, whatever the outcome; none leaves it.
    pub progress: Option<ReportedProgress>,
}

impl Settlement {
    /// Ends an attempt that was not slow, without a span or a last progress.
    pub const fn new(lease: Lease, outcome: Outcome, if_canceled: ErrorRecord) -> Self {
        Self { lease, outcome, if_canceled, slow: false, span: None, progress: None }
    }
}

/// What became of an attempt to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It ended, now or at an earlier call with this lease; the job went to this state by it.
    Settled(JobStatus),
    /// The lease is no longer yours; nothing changed.
    Lost,
}

/// Asks to take expired leases away.
#[derive(Clone, Debug, PartialEq)]
pub struct Reclaim {
    /// How many at most; never more than [`SWEEP_JOBS`](crate::limits::SWEEP_JOBS) are taken.
    pub limit: u32,
    /// How long leases last: how long a sweeper waits that was itself cut off.
    pub lease: Duration,
    /// The error of a job that lost too many leases.
    pub lost: ErrorRecord,
    /// The error of a job whose cancellation was requested.
    pub canceled: ErrorRecord,
}

/// A job whose lease was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Which.
    pub id: JobId,
    /// Its type.
    pub name: JobName,
    /// The attempt that was lost.
    pub attempt: u32,
    /// Where the job went: Queued, Failed or Canceled.
    pub status: JobStatus,
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// When the lease was taken away, by the store's clock.
    pub recovered_at: Timestamp,
    /// The trace context of its submission.
    pub trace: Option<TraceContext>,
}

/// What a sweep did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// Nobody swept for a whole lease, so nothing is taken for this long.
    Waiting(Duration),
    /// These were taken.
    Done {
        /// Which.
        recovered: Vec<Recovered>,
        /// Whether more leases have expired.
        more: bool,
    },
}
