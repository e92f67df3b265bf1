//! Log lines of other modules, one function each. A subscriber that panics loses the line and nothing else.
//!
//! The lines in this table report the life of a job. They have the field `event` and the target `async_endpoints`, and are
//! written once, by the process that made the change, when the store has accepted it. The last line of a job, its terminal
//! line, is `job.completed`, `job.failed` or `job.canceled`.
//!
//! | event | level | written when | own fields |
//! |---|---|---|---|
//! | `job.accepted` | info | a job is stored | `retry_of` if an operator retried that job |
//! | `job.duplicate` | info | a submission is answered with the job of an earlier one | |
//! | `job.rejected` | info for a mistake of the caller, else warn | a submission is refused; there is no job | `job_name`, `result`, `code` |
//! | `job.started` | info | an attempt starts | `queue_time_ms` |
//! | `job.retry_scheduled` | warn | an attempt failed and the job is retried | `code`, `detail`, `error`, `location`, `processing_time_ms`, `delay_ms` |
//! | `job.completed` | info | the handler returned a result | `processing_time_ms` |
//! | `job.failed` | error | the last attempt failed, or its worker was lost | `code`, `detail`, `error`, `location`, `processing_time_ms` |
//! | `job.canceled` | info | a waiting job is canceled, or a running one has ended after a cancel request | `processing_time_ms` if it ran |
//! | `job.released` | info | a stopping worker returned the job | `processing_time_ms` |
//! | `job.recovered` | warn | a lost attempt's job is runnable again | |
//!
//! Each line about a job is written in a [`Scope`](async_endpoints_telemetry::Scope), which adds the correlation fields. In
//! the scope of an attempt these are `trace_id`, `span_id`, `job_id`, `job_name`, `attempt`, `worker_id` and `request_id`.
//! Lines of other processes have `trace_id` of the submission, `job_id`, `job_name` and, after the first start, `attempt`.
//! `error` is the error's source chain, or a panic's message, and `location` where the panic began.
//!
//! A process that dies, or never gets the store's answer, between a change and its line does not write the line.
//!
//! The sender `log` writes one line per notification of an alert, with the same target:
//!
//! | event | level | written when | own fields |
//! |---|---|---|---|
//! | `alert.firing` | error for severity High and Critical, else warn | an alert fires, or still fires after the repeat interval | `rule`, `severity`, `alert_id`, `since`, `title`, `detail` |
//! | `alert.resolved` | info | the problem has ended | as above |

//!
//! An action of an operator writes one line when it has ended, with the same target and the request's `trace_id`:
//!
//! | event | level | written when | own fields |
//! |---|---|---|---|
//! | `operator.action` | info | an action of an operator has ended, was refused or was interrupted | `who`, `action`, `action_target`, `action_values`, `outcome` |

use std::{fmt::Display, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Timestamp,
    store::{JobLookup, Outcome, Recovered, StoreError},
};
use async_endpoints_telemetry::log_safely;
use tracing::field::display;
use uuid::Uuid;

use super::{
    failure::{FailedAttempt, milliseconds},
    scope,
    series::{SubmissionResult, WORKER_LOST},
};
use crate::{context::AttemptInfo, health::HealthStatus, log_buffer::OWN_TARGET};

/// Writes a line about the life of a job.
macro_rules! event {
    ($level:ident, $event:literal, $($line:tt)*) => {
        log_safely(|| tracing::$level!(target: OWN_TARGET, event = $event, $($line)*))
    };
}

/// The job is a retry of another one if an operator asked for it.
pub(crate) fn job_accepted(id: JobId, name: &JobName, retry_of: Option<JobId>) {
    let retry_of = retry_of.map(display);
    scope::log_job(id, name, None, None, || event!(info, "job.accepted", retry_of, "the job is accepted"));
}

/// Logs a repeated submission with the id of the earlier job. `id` is the repeat's own, which counts if the job is gone.
pub(crate) fn job_duplicate(id: JobId, name: &JobName, found: &JobLookup) {
    let id = match found {
        JobLookup::Found(job) => job.id,
        JobLookup::Gone { .. } | JobLookup::NotFound => id,
    };
    scope::log_job(id, name, None, None, || event!(info, "job.duplicate", "the submission is a repeat"));
}

/// `code` is the code of the problem; none for a response that the application made.
pub(crate) fn job_rejected(name: &JobName, result: SubmissionResult, code: Option<&str>) {
    let text = result.as_str();
    match result {
        SubmissionResult::Rejected => {
            event!(warn, "job.rejected", job_name = %name, result = text, code, "the submission is refused");
        }
        _ => event!(info, "job.rejected", job_name = %name, result = text, code, "the submission is refused"),
    }
}

/// Called in the attempt's scope.
pub(crate) fn job_started(queue_time: Duration) {
    event!(info, "job.started", queue_time_ms = milliseconds(queue_time), "the attempt starts");
}

/// Logs the end of an attempt, after which the job has `status`. Called in the attempt's scope.
pub(crate) fn attempt_ended(outcome: &Outcome, status: JobStatus, ran: Duration) {
    let processing_time_ms = milliseconds(ran);
    match status {
        JobStatus::Completed => event!(info, "job.completed", processing_time_ms, "the job is completed"),
        JobStatus::Canceled => event!(info, "job.canceled", processing_time_ms, "the job is canceled"),
        JobStatus::Queued => event!(info, "job.released", processing_time_ms, "the attempt is released"),
        JobStatus::Scheduled | JobStatus::Failed | JobStatus::InProgress => {
            FailedAttempt::of(outcome, ran).iter().for_each(FailedAttempt::log);
        }
    }
}

/// Logs the cancellation of a job that did not run.
pub(crate) fn job_canceled(job: &JobView) {
    let write = || event!(info, "job.canceled", "the job is canceled");
    scope::log_job(job.id, &job.name, Some(job.attempt), job.trace.as_ref(), write);
}

/// Logs the new state of a job whose attempt was lost.
pub(crate) fn job_recovered(job: &Recovered) {
    let write = || match job.status {
        JobStatus::Canceled => event!(info, "job.canceled", "the job is canceled"),
        JobStatus::Failed => {
            event!(error, "job.failed", code = WORKER_LOST, "the job failed: it lost too many workers");
        }
        _ => event!(warn, "job.recovered", "the job is recovered from a worker that died or lost the store"),
    };
    scope::log_job(job.id, &job.name, Some(job.attempt), job.trace.as_ref(), write);
}

/// The fields of a line about an alert.
pub(crate) struct AlertLine<'a> {
    pub(crate) rule: &'a str,
    pub(crate) severity: &'a str,
    pub(crate) alert_id: Uuid,
    pub(crate) since: Timestamp,
    pub(crate) title: &'a str,
    pub(crate) detail: &'a str,
}

/// Logs that an alert fires: as an error if it is `urgent`, else as a warning.
pub(crate) fn alert_firing(urgent: bool, line: &AlertLine<'_>) {
    let AlertLine { rule, severity, alert_id, since, title, detail } = line;
    if urgent {
        event!(error, "alert.firing", rule, severity, %alert_id, %since, title, detail, "the alert fires");
    } else {
        event!(warn, "alert.firing", rule, severity, %alert_id, %since, title, detail, "the alert fires");
    }
}

/// Logs that an alert has ended.
pub(crate) fn alert_resolved(line: &AlertLine<'_>) {
    let AlertLine { rule, severity, alert_id, since, title, detail } = line;
    event!(info, "alert.resolved", rule, severity, %alert_id, %since, title, detail, "the alert is resolved");
}

/// Logs the end of an operator's action.
pub(crate) fn operator_action(
    who: &str,
    action: &str,
    action_target: Option<&str>,
    action_values: Option<&str>,
    outcome: &str,
) {
    event!(info, "operator.action", who, action, action_target, action_values, outcome, "an operator acted");
}

pub(crate) fn audit_not_written(pending: usize, error: &StoreError) {
    log_safely(
        || tracing::warn!(pending, %error, "entries of the audit trail are not written and wait for the next action"),
    );
}

/// Logs that this process runs a bulk operation, or continues the one of a process that died or stopped.
pub(crate) fn bulk_runs_here(bulk_id: Uuid, is_continued: bool) {
    log_safely(|| match is_continued {
        true => tracing::warn!(%bulk_id, "this process continues a bulk operation of another process"),
        false => tracing::info!(%bulk_id, "this process runs a bulk operation"),
    });
}

pub(crate) fn bulk_ended(bulk_id: Uuid, changed: u64, skipped: u64, failed: u64) {
    log_safely(|| tracing::info!(%bulk_id, changed, skipped, failed, "a bulk operation has ended"));
}

pub(crate) fn alerts_led_here() {
    log_safely(|| tracing::info!("this process evaluates the alert rules of the fleet"));
}

pub(crate) fn alerts_led_elsewhere() {
    log_safely(|| tracing::info!("another process evaluates the alert rules of the fleet"));
}

pub(crate) fn alert_rule_failed(rule: &str, error: &str) {
    log_safely(|| tracing::warn!(rule, error, "an alert rule cannot be evaluated and keeps its state"));
}

pub(crate) fn alert_rule_works(rule: &str) {
    log_safely(|| tracing::info!(rule, "an alert rule is evaluated again"));
}

/// Logs a failed attempt to send a notification, which is retried after `pause`; none if it is given up.
pub(crate) fn alert_not_sent(sender: &str, rule: &str, error: &dyn Display, pause: Option<Duration>) {
    log_safely(|| match pause.map(|pause| pause.as_secs_f64()) {
        Some(pause_s) => tracing::warn!(sender, rule, %error, pause_s, "a notification was not sent and is retried"),
        None => tracing::error!(sender, rule, %error, "a notification was not sent and is given up"),
    });
}

pub(crate) fn alert_not_refreshed(sender: &str, error: &dyn Display) {
    log_safely(|| tracing::warn!(sender, %error, "a receiver did not get its alerts again; they are sent later"));
}

pub(crate) fn alert_dropped(rule: &str, senders: &[String]) {
    log_safely(|| tracing::error!(rule, ?senders, "too many notifications wait: the oldest one is dropped"));
}

/// Logs an endpoint of a type whose jobs no process is known to run.
pub(crate) fn no_handler(job_name: &str, method: &str, path: &str) {
    log_safely(|| {
        tracing::warn!(
            job_name,
            method,
            path,
            "no handler of this process runs the jobs of this endpoint: add `.handler(…)` for its job type, or \
             `.handled_elsewhere(…)` if other processes run them"
        );
    });
}

pub(crate) fn task_restarted(task: &str, count: u32, panic: &str) {
    log_safely(|| tracing::error!(task, count, panic, "a background task panicked and was restarted"));
}

/// Logs a permanent error. `OutageLog` logs the transient ones.
pub(crate) fn store_failed(operation: &str, error: &StoreError) {
    if !error.is_transient() {
        log_safely(|| tracing::warn!(operation, %error, "the store failed"));
    }
}

pub(crate) fn store_unavailable(operation: &str, error: &StoreError) {
    log_safely(|| tracing::warn!(operation, %error, "store calls fail and are retried"));
}

pub(crate) fn store_still_unavailable(operation: &str, error: &StoreError, since: Duration, failures: u64) {
    let for_s = since.as_secs_f64();
    log_safely(|| tracing::warn!(operation, %error, for_s, failures, "store calls still fail"));
}

pub(crate) fn store_available(after: Duration, failures: u64) {
    log_safely(|| tracing::info!(after_s = after.as_secs_f64(), failures, "store calls succeed again"));
}

pub(crate) fn store_not_open(why: &str) {
    log_safely(|| tracing::warn!(error = why, "the store cannot be opened; opening is retried"));
}

pub(crate) fn store_opened(after: Duration) {
    log_safely(|| tracing::info!(after_s = after.as_secs_f64(), "the store is open"));
}

/// Logs nothing if `count` is 0.
pub(crate) fn settlements_refused(count: usize) {
    if count > 0 {
        log_safely(|| {
            tracing::warn!(count, "settlements were rejected because the leases were lost; the jobs run elsewhere");
        });
    }
}

pub(crate) fn attempt_stalled(attempt: &AttemptInfo) {
    log_safely(|| {
        tracing::error!(
            job_id = %attempt.id,
            job_name = %attempt.name,
            attempt = attempt.attempt,
            "a handler blocks its thread past its timeout; the attempt was ended and its slot is leaked",
        );
    });
}

pub(crate) fn attempts_given_back(count: usize) {
    log_safely(|| tracing::info!(count, "attempts that still ran at the end of the drain were released"));
}

pub(crate) fn hints_ended() {
    log_safely(|| tracing::error!("the store's stream of hints ended; it is reopened"));
}

pub(crate) fn stop_requested(delay: Duration) {
    log_safely(|| {
        let delay_s = delay.as_secs_f64();
        tracing::info!(delay_s, "the process is not ready any more; it still accepts jobs, and drains after the delay");
    });
}

pub(crate) fn stopping(within: Duration) {
    log_safely(|| {
        let within_s = within.as_secs_f64();
        tracing::info!(
            within_s,
            "the process drains: no more jobs are accepted or started; a second signal stops it at once"
        );
    });
}

pub(crate) fn health_changed(check: &str, status: HealthStatus, description: Option<&str>) {
    let description = description.map(display);
    log_safely(|| match status {
        HealthStatus::Healthy => tracing::info!(check, %status, description, "a health check changed"),
        HealthStatus::Degraded => tracing::warn!(check, %status, description, "a health check changed"),
        HealthStatus::Unhealthy => tracing::error!(check, %status, description, "a health check changed"),
    });
}

pub(crate) fn internal(what: &str, error: &dyn Display) {
    log_safely(|| tracing::error!(%error, "{what}"));
}
