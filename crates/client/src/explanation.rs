//! Why a job is in its state, as the service explains it.

use async_endpoints_core::Timestamp;
use serde::Deserialize;

/// Why a job is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The most important reason as one sentence. The text may change between versions of the service.
    pub verdict: String,
    /// All reasons, the most important first.
    pub reasons: Vec<Reason>,
    /// The place in the queue of its type, if the job is runnable.
    pub position: Option<QueuePosition>,
    /// When a waiting job starts. `None` if the service does not know.
    pub estimate: Option<StartEstimate>,
    /// The live workers of the service.
    pub workers: WorkerCounts,
}

/// One reason for the state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ReasonCode {
    /// Waiting: earlier jobs of its type are ahead, or a worker takes it next.
    Queued,
    /// Waiting: it is not due yet.
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
    /// Running: its worker is silent. The job is recovered when its lease ends.
    LeaseNotRenewed,
    /// Running: a caller asked to cancel it.
    CancelRequested,
    /// Ended: the handler returned a result.
    Completed,
    /// Ended: the last attempt failed, and no retry was left.
    RetriesUsedUp,
    /// Ended: the last attempt failed with an error that is not retried.
    PermanentError,
    /// Ended: the last attempt reached its timeout.
    TimedOut,
    /// Ended: too many of its workers died or were cut off.
    TooManyLosses,
    /// Ended: a caller canceled it.
    CanceledByCaller,
    /// Ended: the handler canceled it.
    CanceledByHandler,
    /// Earlier: attempts failed and were retried.
    Retried,
    /// Earlier: attempts were lost with their workers, and the job was recovered.
    Recovered,
    /// Earlier: workers that shut down released attempts.
    Released,
    /// Earlier: it was made to retry another job.
    RetryOf,
    /// Later: another job retries it.
    RetriedBy,
    /// A reason that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// The place of a job in the queue of its type.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct QueuePosition {
    /// Jobs of its type that start before it.
    pub ahead: u64,
    /// Whether the number is exact.
    pub exact: bool,
}

/// When a waiting job is expected to start. At least 80 % of jobs start between both times.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct StartEstimate {
    /// The earliest time that is likely.
    pub from: Timestamp,
    /// The latest time that is likely.
    pub to: Timestamp,
    /// The facts behind the estimate.
    pub basis: String,
}

/// The live workers of a service.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// All of them.
    pub live: u64,
    /// Those with a handler for the job's type.
    pub taking: u64,
    /// Their free slots for the job's type.
    pub free: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_codes_and_members_are_accepted() {
        let reason =
            json!({ "code": "moonPhase", "since": null, "until": null, "detail": "The moon is full.", "color": 1 });
        let workers = json!({ "live": 2, "taking": 1, "free": 0 });
        let json = json!({ "verdict": "It waits.", "reasons": [reason], "position": null, "estimate": null, "workers": workers });
        let explanation: Explanation = serde_json::from_value(json).unwrap();
        assert_eq!(explanation.reasons[0].code, ReasonCode::Other);
        assert_eq!(explanation.workers, WorkerCounts { live: 2, taking: 1, free: 0 });
    }
}
