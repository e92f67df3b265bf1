//! One function per documented log line of other modules.

use std::time::Duration;

use async_endpoints_core::store::{Recovered, StoreError};

use crate::context::AttemptInfo;

pub(crate) fn task_restarted(task: &str, count: u32, panic: &str) {
    tracing::error!(task, count, panic, "a background task panicked and is started again");
}

pub(crate) fn store_failed(operation: &str, error: &StoreError) {
    tracing::warn!(operation, %error, transient = error.is_transient(), "the store failed");
}

pub(crate) fn store_not_open(why: &str) {
    tracing::warn!(error = why, "the store cannot be opened yet; it is tried again until it can");
}

pub(crate) fn store_opened(after: Duration) {
    tracing::info!(after_s = after.as_secs_f64(), "the store is open");
}

pub(crate) fn settlements_refused(count: usize) {
    if count == 0 {
        return;
    }
    tracing::warn!(count, "ended attempts had lost their leases; their jobs run elsewhere");
}

pub(crate) fn attempt_stalled(attempt: &AttemptInfo) {
    tracing::error!(
        job_id = %attempt.id,
        job_name = %attempt.name,
        attempt = attempt.attempt,
        "a handler blocks its thread past its time; its attempt is ended and its slot leaked",
    );
}

pub(crate) fn attempts_given_back(count: usize) {
    tracing::info!(count, "attempts still running at the end of the drain were given back");
}

pub(crate) fn job_recovered(job: &Recovered) {
    tracing::warn!(
        event = "job.recovered",
        job_id = %job.id,
        job_name = %job.name,
        attempt = job.attempt,
        status = %job.status,
        "a job was taken from a worker that died or was cut off",
    );
}

pub(crate) fn hints_ended() {
    tracing::error!("the store's stream of hints ended; it is opened again");
}

pub(crate) fn stopping(within: Duration) {
    tracing::info!(within_s = within.as_secs_f64(), "stopping: nothing more is accepted or started");
}

pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) {
    tracing::error!(%error, "{what}");
}
