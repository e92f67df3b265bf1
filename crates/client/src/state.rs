//! A job as the service describes it.

use async_endpoints_core::{
    JobId, JobName, JobStatus, Priority, Timestamp,
    job::{AttemptOutcome, Progress, WorkerId},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{error::JobFailure, problem::Problem};

/// The state of a job at one version. `Res` is the type of the handler's result.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JobState<Res> {
    /// The job.
    pub id: JobId,
    /// Its type.
    pub name: JobName,
    /// Its status. Completed, Failed and Canceled are terminal.
    pub status: JobStatus,
    /// Starts so far.
    pub attempt: u32,
    /// Failures of the handler that were retried.
    pub retry_count: u32,
    /// Attempts whose worker died or was cut off.
    pub loss_count: u32,
    /// Retries allowed.
    pub max_retries: u32,
    /// Decides which of the waiting jobs starts first.
    pub priority: Priority,
    /// Grows with every change.
    pub version: u64,
    /// When the service accepted it.
    pub created_at: Timestamp,
    /// When it is or was due, if it was ever Scheduled.
    pub scheduled_at: Option<Timestamp>,
    /// The latest start.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When it last changed.
    pub last_updated_at: Timestamp,
    /// When an ended job expires.
    pub expires_at: Option<Timestamp>,
    /// When a caller asked to cancel it while it ran.
    pub cancel_requested_at: Option<Timestamp>,
    /// The progress of the latest attempt.
    pub progress: Option<Progress>,
    /// The result of a Completed job.
    pub result: Option<Res>,
    /// The error of a Failed or Canceled job; before the end, the error of the last attempt.
    pub error: Option<Problem>,
    /// The last 20 attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Why the job waits.
    pub waiting: Option<Waiting>,
    /// The job that this one retries.
    pub retry_of: Option<JobId>,
    /// The job that retries this one.
    pub retried_by: Option<JobId>,
    /// The trace of the submission.
    pub trace_id: Option<String>,
}

impl<Res> JobState<Res> {
    /// The percentage of the progress, 0 to 100, if the handler reported it.
    pub fn percent(&self) -> Option<f64> {
        self.progress.as_ref()?.percent
    }

    /// The message of the progress, if the handler reported one.
    pub fn message(&self) -> Option<&str> {
        self.progress.as_ref()?.message.as_deref()
    }

    /// The result of a Completed job, or the failure of a Failed or Canceled one. `None` if the job has not ended.
    pub fn into_result(self) -> Option<Result<Res, JobFailure>> {
        match (self.status, self.result) {
            (JobStatus::Completed, Some(result)) => Some(Ok(result)),
            (status, _) if status.is_terminal() => {
                let problem = self.error.unwrap_or_default();
                Some(Err(JobFailure { id: self.id, name: self.name, status, problem }))
            }
            _ => None,
        }
    }
}

impl<Res: DeserializeOwned> JobState<Res> {
    pub(crate) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let mut state: Self = serde_json::from_slice(json)?;
        if state.status == JobStatus::Completed && state.result.is_none() {
            // `null` is the result of `()` and `Option`.
            state.result = Some(serde_json::from_str("null")?);
        }
        Ok(state)
    }
}

/// One start of a job's handler.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first.
    pub attempt: u32,
    /// The worker that ran it.
    pub worker: Option<WorkerId>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
    /// Its error.
    pub error: Option<Problem>,
}

/// Why a job waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Waiting {
    /// The reason.
    pub reason: WaitingReason,
    /// Jobs of its type that start first, if known.
    pub ahead: Option<u64>,
    /// End of the delay.
    pub until: Option<Timestamp>,
}

/// The reason why a job waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WaitingReason {
    /// Other jobs are first, or all slots of the workers are busy.
    Queued,
    /// It is not due yet.
    Delayed,
    /// No live worker has a handler for its type.
    NoWorker,
    /// Workers have free slots, and run as many jobs of its type as they may.
    ConcurrencyLimit,
    /// An operator paused its type.
    Paused,
    /// A reason that this version of the client does not know.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(changes: &Value) -> Vec<u8> {
        let mut job = json!({
            "id": "01a223eb-0ae5-7044-9df3-89e55d8e79bf", "name": "Print", "status": "Completed", "attempt": 1,
            "retryCount": 0, "lossCount": 0, "maxRetries": 3, "priority": 4, "version": 6,
            "createdAt": "2026-11-28T20:48:56.037960Z", "scheduledAt": null, "startedAt": null, "completedAt": null,
            "lastUpdatedAt": "2026-11-28T20:48:56.675109Z", "expiresAt": null, "cancelRequestedAt": null,
            "progress": null, "result": null, "error": null, "attempts": [], "waiting": null, "retryOf": null,
            "retriedBy": null, "traceId": null, "links": {},
        });
        for (name, value) in changes.as_object().expect("an object") {
            job[name] = value.clone();
        }
        job.to_string().into_bytes()
    }

    #[test]
    fn null_is_a_result_if_the_type_allows_it() {
        let completed = job(&json!({}));
        assert_eq!(JobState::<()>::parse(&completed).unwrap().into_result(), Some(Ok(())));
        assert_eq!(JobState::<Option<u8>>::parse(&completed).unwrap().into_result(), Some(Ok(None)));
        assert_eq!(JobState::<Value>::parse(&completed).unwrap().into_result(), Some(Ok(Value::Null)));
        let error = JobState::<u8>::parse(&completed).unwrap_err().to_string();
        assert!(error.starts_with("invalid type: null, expected u8"), "{error}");
        let queued = job(&json!({ "status": "Queued" }));
        assert_eq!(JobState::<()>::parse(&queued).unwrap().into_result(), None);
    }

    #[test]
    fn unknown_members_and_reasons_are_accepted() {
        let waiting = json!({ "reason": "moonPhase", "ahead": 2, "until": null });
        let error = json!({ "code": "NO_PAPER", "errors": [{ "pointer": "/pages", "detail": "too many" }] });
        let json = job(&json!({ "status": "Failed", "waiting": waiting, "error": error, "color": "red" }));
        let state = JobState::<u8>::parse(&json).unwrap();
        assert_eq!(state.waiting.unwrap().reason, WaitingReason::Other);
        let problem = state.into_result().unwrap().unwrap_err().problem;
        assert_eq!((&*problem.code, problem.status), ("NO_PAPER", 0));
        assert_eq!(problem.extensions["errors"][0]["pointer"], "/pages");
    }
}
