//! Why a job ended as it did.

use std::time::Duration;

use async_endpoints_core::{JobStatus, job::AttemptOutcome};

use super::{
    Facts, Found, Reason, ReasonCode,
    text::{self, duration, error, reason},
};
use crate::error::Builtin;

pub(super) fn reasons(facts: &Facts<'_>) -> Found {
    let (verdict, reason) = match facts.job.status {
        JobStatus::Completed => completed(facts),
        JobStatus::Failed => failed(facts),
        _ => canceled(facts),
    };
    let mut reasons = vec![reason.since(facts.job.completed_at)];
    reasons.extend(timed_out(facts));
    (verdict, reasons)
}

fn completed(facts: &Facts<'_>) -> (String, Reason) {
    let attempt = facts.job.attempt;
    let detail = match run_time(facts) {
        Some(run_time) => format!("The handler returned a result in attempt {attempt}, after {}.", duration(run_time)),
        None => format!("The handler returned a result in attempt {attempt}."),
    };
    (format!("The job completed in attempt {attempt}."), reason(ReasonCode::Completed, detail))
}

fn failed(facts: &Facts<'_>) -> (String, Reason) {
    let job = facts.job;
    let (short, long) = (text::code(job.error.as_ref()), error(job.error.as_ref()));
    let last = facts.last_attempt().and_then(|attempt| attempt.outcome);
    if last == Some(AttemptOutcome::Lost) {
        let verdict = format!("The job failed with {short}: more attempts were lost with their workers than allowed.");
        let detail = format!("Lost attempts: {}. A worker died or was cut off, and the lease expired.", job.loss_count);
        return (verdict, reason(ReasonCode::TooManyLosses, detail));
    }
    if job.error.as_ref().is_some_and(|error| !error.retryable) {
        let verdict = format!("The job failed in attempt {} with {short}, which is not retried.", job.attempt);
        let detail = format!("Attempt {} failed with {long}. The error is permanent.", job.attempt);
        return (verdict, reason(ReasonCode::PermanentError, detail));
    }
    let retries = match job.max_retries {
        0 => "its type allows no retry".to_owned(),
        1 => "its retry was used".to_owned(),
        retries => format!("all {retries} retries were used"),
    };
    let verdict = format!("The job failed in attempt {} with {short}: {retries}.", job.attempt);
    let detail = format!("Attempt {} failed with {long}, and {retries}.", job.attempt);
    (verdict, reason(ReasonCode::RetriesUsedUp, detail))
}

fn canceled(facts: &Facts<'_>) -> (String, Reason) {
    let job = facts.job;
    let by_handler = job.cancel_requested_at.is_none()
        && facts.last_attempt().is_some_and(|attempt| attempt.outcome == Some(AttemptOutcome::Canceled));
    if by_handler {
        let verdict = format!("The handler canceled the job in attempt {}.", job.attempt);
        let detail =
            format!("Attempt {} reported that the job is canceled. There was no request to cancel it.", job.attempt);
        return (verdict, reason(ReasonCode::CanceledByHandler, detail));
    }
    let (verdict, detail) = match job.cancel_requested_at {
        Some(at) => {
            let after = duration(job.completed_at.unwrap_or(at).since(at));
            let detail =
                format!("The request came while attempt {} ran. The attempt ended {after} later.", job.attempt);
            ("The job was canceled on request while it ran.".to_owned(), detail)
        }
        None if job.attempt == 0 => {
            ("The job was canceled on request before it started.".to_owned(), "The job never started.".to_owned())
        }
        None => {
            let detail = format!("The job waited after attempt {}.", job.attempt);
            ("The job was canceled on request while it waited.".to_owned(), detail)
        }
    };
    (verdict, reason(ReasonCode::CanceledByCaller, detail))
}

/// A failed job whose last attempt timed out.
fn timed_out(facts: &Facts<'_>) -> Option<Reason> {
    let error = facts.job.error.as_ref().filter(|_| facts.job.status == JobStatus::Failed)?;
    (error.code == Builtin::Timeout.code()).then(|| {
        let run_time = run_time(facts).map(|time| format!(" after {}", duration(time))).unwrap_or_default();
        let detail = format!("Attempt {} was stopped{run_time}: it reached its timeout.", facts.job.attempt);
        reason(ReasonCode::TimedOut, detail).since(facts.job.completed_at)
    })
}

/// How long the last attempt ran.
fn run_time(facts: &Facts<'_>) -> Option<Duration> {
    let attempt = facts.last_attempt()?;
    Some(attempt.ended_at?.since(attempt.started_at))
}
