//! Arguments and answers of the calls made by workers: claim, renew, report, settle, reclaim.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Lease, LeaseToken};
use crate::{
    job::{
        AttemptOutcome, Digest, ErrorRecord, JobId, JobName, JobStatus, LogLine, Priority, Progress, TraceContext,
        TraceParent, WorkerId,
    },
    time::Timestamp,
};

/// A worker's quota for one type in a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeQuota {
    /// The type.
    pub name: JobName,
    /// Maximum number of jobs.
    pub max: u32,
    /// Maximum run time of an attempt. Stored with the attempt, to find overdue ones.
    pub timeout: Duration,
}

/// A request for jobs, for permits that the worker already holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The worker.
    pub worker: WorkerId,
    /// The token of all leases of this claim.
    pub token: LeaseToken,
    /// The types, with a quota for each.
    pub quotas: Vec<TypeQuota>,
    /// Maximum number of jobs in total, at most [`BATCH_JOBS`](crate::limits::BATCH_JOBS).
    pub max: u32,
    /// Maximum bytes of payload. A larger job is claimed alone.
    pub max_bytes: usize,
    /// Duration of the leases.
    pub lease: Duration,
}

/// A started attempt, as its worker gets it.
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
    /// The submitted payload.
    pub payload: Bytes,
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// Since when it was runnable.
    pub runnable_since: Timestamp,
    /// When this attempt started.
    pub started_at: Timestamp,
    /// The job's owner, hashed.
    pub owner: Option<Digest>,
    /// The owner's name as text.
    pub owner_label: Option<String>,
    /// The trace context of the submission.
    pub trace: Option<TraceContext>,
    /// The `traceparent` of the attempt before, if its settlement had one.
    pub previous_span: Option<TraceParent>,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The attempts, in the order in which they should start.
    pub attempts: Vec<Attempt>,
    /// When to claim again, from now: zero if runnable or due jobs of the requested types are left, else when the next
    /// Scheduled job is due. None if there is no such job.
    pub next_claim: Option<Duration>,
    /// The store's time.
    pub now: Timestamp,
}

/// A worker's heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker. Stored with each heartbeat, for readers alone.
    pub worker: WorkerInfo,
    /// How long the worker counts as live without another heartbeat. Zero deregisters the worker.
    pub ttl: Duration,
}

/// A worker as its heartbeats describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInfo {
    /// Its id.
    pub id: WorkerId,
    /// The name of its machine or container; empty if unknown.
    pub host: String,
    /// The id of its process.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// When it was created, by the clock of its machine.
    pub started_at: Timestamp,
    /// The state of its slots.
    pub slots: WorkerSlots,
    /// The types it has handlers for.
    pub types: Vec<TypeCapacity>,
}

/// A type that a worker claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeCapacity {
    /// The type.
    pub name: JobName,
    /// Attempts of it running in this worker.
    pub running: u32,
    /// Maximum number of concurrent attempts of it in this worker.
    pub limit: u32,
}

/// The slots of a worker by state.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSlots {
    /// Running a handler, or settling.
    pub busy: u32,
    /// Free.
    pub idle: u32,
    /// Held by a handler that did not stop and was abandoned.
    pub leaked: u32,
}

/// The answer to a renewal.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is renewed.
    Held,
    /// The lease is renewed, and a caller asked to cancel the job.
    CancelRequested,
    /// The lease was lost. The worker stops the handler.
    Lost,
}

/// Progress reported by a handler. The store adds its time.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedProgress {
    /// Units done.
    pub completed: u64,
    /// Units in total, where known.
    pub total: Option<u64>,
    /// 0 to 100, where known.
    pub percent: Option<f64>,
    /// A description of the present step.
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
    /// The attempt.
    pub lease: Lease,
    /// Replaces the job's progress; none leaves it unchanged.
    pub progress: Option<ReportedProgress>,
    /// Lines to append. The store sets line number and attempt.
    pub logs: Vec<LogLine>,
}

/// The answer to a report.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// The report is stored.
    Applied,
    /// The lease was lost, and nothing is stored.
    Lost,
}

/// The outcome of an attempt, as its worker decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The handler returned a result.
    Completed {
        /// The handler's JSON.
        result: Bytes,
    },
    /// The attempt failed and the job is retried after `delay`.
    Retry {
        /// The delay, from now by the store's clock.
        delay: Duration,
        /// Why.
        error: ErrorRecord,
    },
    /// The attempt failed, and so does the job.
    Failed {
        /// Why.
        error: ErrorRecord,
    },
    /// The handler reported that it was canceled.
    Canceled {
        /// Why.
        error: ErrorRecord,
    },
    /// The worker shuts down and releases the job.
    Released,
}

impl Outcome {
    /// The outcome to record, unless a cancel request changes it.
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

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// The attempt.
    pub lease: Lease,
    /// Its outcome.
    pub outcome: Outcome,
    /// The error to store if a cancel was requested and the outcome is not `Completed`.
    pub if_canceled: ErrorRecord,
    /// Whether the attempt ran for longer than its type's `slow_after`.
    pub slow: bool,
    /// The attempt's own `traceparent`, for the next attempt to link to.
    pub span: Option<TraceParent>,
    /// The attempt's final progress. Replaces the job's progress, whatever the outcome; none leaves it unchanged.
    pub progress: Option<ReportedProgress>,
    /// The attempt's last log lines, appended whatever the outcome. The store sets line number and attempt.
    pub logs: Vec<LogLine>,
}

impl Settlement {
    /// The end of an attempt that was not slow, without span, final progress and log lines.
    pub const fn new(lease: Lease, outcome: Outcome, if_canceled: ErrorRecord) -> Self {
        Self { lease, outcome, if_canceled, slow: false, span: None, progress: None, logs: Vec::new() }
    }

    /// Bytes of its result and log lines, as counted against [`BATCH_BYTES`](crate::limits::BATCH_BYTES).
    pub fn bytes(&self) -> usize {
        let result = if let Outcome::Completed { result } = &self.outcome { result.len() } else { 0 };
        result + self.logs.iter().map(LogLine::bytes).sum::<usize>()
    }
}

/// The answer to a settlement.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The attempt ended, now or in an earlier call with this lease. The state is the one that the job entered then.
    Settled(JobStatus),
    /// The lease was lost, and nothing changed.
    Lost,
}

/// A request to reclaim expired leases.
#[derive(Clone, Debug, PartialEq)]
pub struct Reclaim {
    /// Maximum number of leases, at most [`SWEEP_JOBS`](crate::limits::SWEEP_JOBS).
    pub limit: u32,
    /// Duration of leases, which is how long sweeps pause after none ran for as long.
    pub lease: Duration,
    /// The error of an attempt that was lost.
    pub lost: ErrorRecord,
    /// The error of a job whose cancellation was requested.
    pub canceled: ErrorRecord,
}

/// A job whose lease was reclaimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its id.
    pub id: JobId,
    /// Its type.
    pub name: JobName,
    /// The attempt that was lost.
    pub attempt: u32,
    /// The job's new state: Queued, Failed or Canceled.
    pub status: JobStatus,
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// When the lease was reclaimed, by the store's clock.
    pub recovered_at: Timestamp,
    /// The trace context of its submission.
    pub trace: Option<TraceContext>,
}

/// The answer to a reclaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaimed {
    /// No sweep ran for a whole lease, so sweeps take no lease for this long.
    Waiting(Duration),
    /// Expired leases were reclaimed.
    Done {
        /// Their jobs.
        recovered: Vec<Recovered>,
        /// Whether more leases have expired.
        more: bool,
    },
}
