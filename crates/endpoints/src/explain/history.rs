//! Reasons from earlier attempts, and other jobs that belong to the job.

use async_endpoints_core::job::AttemptOutcome;

use super::{
    Facts, Reason, ReasonCode,
    text::{code, reason},
};

/// What happened to the job before: retries, losses, releases, and the jobs that it retries or that retry it.
pub(super) fn reasons(facts: &Facts<'_>) -> Vec<Reason> {
    let job = facts.job;
    let last = |outcome: AttemptOutcome| job.attempts.iter().rev().find(|attempt| attempt.outcome == Some(outcome));
    let happened = |code: ReasonCode, outcome: AttemptOutcome, number: u32, detail: String| {
        let ended_at = last(outcome).and_then(|attempt| attempt.ended_at);
        (number > 0).then(|| reason(code, detail).since(ended_at))
    };
    let error = last(AttemptOutcome::Retried).and_then(|attempt| attempt.error.as_ref());
    let retried =
        format!("Retries so far: {} of {}, the last after {}.", job.retry_count, job.max_retries, code(error));
    let lost = format!("Attempts lost so far: {}. The lease of a lost attempt expired.", job.loss_count);
    let released = format!("Attempts released so far: {}. Their workers shut down.", job.release_count);
    [
        happened(ReasonCode::Retried, AttemptOutcome::Retried, job.retry_count, retried),
        happened(ReasonCode::Recovered, AttemptOutcome::Lost, job.loss_count, lost),
        happened(ReasonCode::Released, AttemptOutcome::Released, job.release_count, released),
        job.retry_of.map(|id| reason(ReasonCode::RetryOf, format!("The job was made to retry job {id}."))),
        job.retried_by.map(|id| reason(ReasonCode::RetriedBy, format!("Job {id} retries the job."))),
    ]
    .into_iter()
    .flatten()
    .collect()
}
