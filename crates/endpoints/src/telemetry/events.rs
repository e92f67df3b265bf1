//! Log lines of other modules, one function each. A subscriber that panics loses the line and nothing else.

use std::{fmt::Display, time::Duration};

use async_endpoints_core::store::{Recovered, StoreError};
use async_endpoints_telemetry::log_safely;

use crate::context::AttemptInfo;

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

pub(crate) fn job_recovered(job: &Recovered) {
    log_safely(|| {
        tracing::warn!(
            event = "job.recovered",
            job_id = %job.id,
            job_name = %job.name,
            attempt = job.attempt,
            status = %job.status,
            "a job was recovered from a worker that died or lost the store",
        );
    });
}

pub(crate) fn hints_ended() {
    log_safely(|| tracing::error!("the store's stream of hints ended; it is reopened"));
}

pub(crate) fn stopping(within: Duration) {
    log_safely(|| {
        tracing::info!(within_s = within.as_secs_f64(), "the process stops: no more jobs are accepted or started");
    });
}

pub(crate) fn internal(what: &str, error: &dyn Display) {
    log_safely(|| tracing::error!(%error, "{what}"));
}
