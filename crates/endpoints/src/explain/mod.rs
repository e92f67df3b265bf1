//! Explains a job: why it waits, where it runs, why it ended as it did. Must not know stores or HTTP.
//!
//! [`explain`] is a pure function over stored facts: the job, the statistics, the heartbeats of workers and the pause of its type.
//!
//! | file | contents |
//! |---|---|
//! | `facts` | what is known about a job and the fleet |
//! | `waiting`, `running`, `ended` | the reasons of a job in these states |
//! | `history` | reasons from earlier attempts |
//! | `estimate` | the position in the queue, and when the job starts |
//! | `replay` | plays a queue with random run times |

mod ended;
mod estimate;
mod facts;
mod history;
mod replay;
mod running;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod text;
mod waiting;

use async_endpoints_core::{JobStatus, Timestamp};
use serde::Serialize;

pub(crate) use self::{
    estimate::expected_wait,
    facts::{Facts, Viewer},
};

/// Why a job is in its state, returned by [`AsyncEndpoints::explain`](crate::AsyncEndpoints::explain).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// The most important reason as one sentence.
    pub verdict: String,
    /// All reasons, the most important first. There is at least one.
    pub reasons: Vec<Reason>,
    /// The place in the queue. `None` for a job that is not runnable, runs or has ended.
    pub position: Option<QueuePosition>,
    /// When a waiting job starts. `None` if the stored facts do not say.
    pub estimate: Option<StartEstimate>,
    /// The workers of the fleet.
    pub workers: WorkerCounts,
}

/// One reason for the state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reason {
    /// Identifies the reason to programs.
    pub code: ReasonCode,
    /// Since when it holds, if that is known.
    pub since: Option<Timestamp>,
    /// Until when it holds, if that is known.
    pub until: Option<Timestamp>,
    /// A description in plain sentences.
    pub detail: String,
}

/// Identifies a reason.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ReasonCode {
    /// Waiting: earlier jobs of its type are ahead, or the next claim takes the job.
    Queued,
    /// Waiting: the due time that its submission set is in the future.
    Delayed,
    /// Waiting: its last attempt failed, and the retry is not due yet.
    RetryBackoff,
    /// Waiting: no live worker has a handler for its type.
    NoWorker,
    /// Waiting: workers with a handler for its type have no free slot.
    SlotsBusy,
    /// Waiting: workers with free slots run as many jobs of its type as they may.
    ConcurrencyLimit,
    /// Waiting: an operator paused its type.
    Paused,
    /// Running: an attempt runs on a worker.
    Running,
    /// Running: the attempt runs for longer than its timeout.
    Overdue,
    /// Running: its worker is silent and does not renew the lease. When it expires, the job is recovered.
    LeaseNotRenewed,
    /// Running: a caller or an operator requested to cancel the job.
    CancelRequested,
    /// Ended: the handler returned a result.
    Completed,
    /// Ended: the last attempt failed, and no retry was left.
    RetriesUsedUp,
    /// Ended: the last attempt failed with an error that is not retried.
    PermanentError,
    /// Ended: the last attempt ran for longer than its timeout.
    TimedOut,
    /// Ended: more attempts were lost with their workers than the job may lose.
    TooManyLosses,
    /// Ended: a caller or an operator canceled the job.
    CanceledByCaller,
    /// Ended: the handler canceled the job.
    CanceledByHandler,
    /// Earlier: attempts failed and were retried.
    Retried,
    /// Earlier: attempts were lost with their workers, and the job was recovered.
    Recovered,
    /// Earlier: workers that shut down released attempts.
    Released,
    /// Earlier: an operator or the owner made this job to retry another one.
    RetryOf,
    /// Later: another job retries this one.
    RetriedBy,
}

/// The place of a job in the queue of its type.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueuePosition {
    /// Number of jobs of its type that start before it.
    pub ahead: u64,
    /// Whether the number is exact. If not, there may be more or fewer.
    pub exact: bool,
}

/// When a waiting job is expected to start, by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StartEstimate {
    /// The earliest time that is likely.
    pub from: Timestamp,
    /// The latest time that is likely. At least 80 % of jobs start between both, as long as attempts run about as long as
    /// those of the last hour.
    pub to: Timestamp,
    /// The facts that the estimate was made from.
    pub basis: String,
}

/// The live workers, as far as they matter to a job.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// Live workers of the fleet: their last heartbeat is at most 3 s or half a lease old, whichever is more.
    pub live: u64,
    /// Live workers with a handler for the job's type.
    pub taking: u64,
    /// Free slots for the job's type in these workers.
    pub free: u64,
}

/// Explains a job.
pub(crate) fn explain(facts: &Facts<'_>) -> Explained {
    let (verdict, mut reasons) = match facts.job.status {
        JobStatus::Queued | JobStatus::Scheduled => waiting::reasons(facts),
        JobStatus::InProgress => running::reasons(facts),
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => ended::reasons(facts),
    };
    reasons.extend(history::reasons(facts));
    let taking = facts.taking();
    Explained {
        verdict,
        reasons,
        position: estimate::position(facts),
        estimate: estimate::start(facts),
        workers: WorkerCounts {
            live: facts.live().count() as u64,
            taking: taking.len() as u64,
            free: taking.iter().map(|capacity| u64::from(capacity.free())).sum(),
        },
    }
}

/// A verdict, and the reasons behind it.
type Found = (String, Vec<Reason>);
