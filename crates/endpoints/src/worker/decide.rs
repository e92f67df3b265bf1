//! Decides what the end of a handler means for its job.

use async_endpoints_core::{
    job::ErrorRecord,
    lifecycle::{Failure, settle_failure},
    store::{Outcome, Settlement},
};

use super::{Worker, running::RunningAttempt};
use crate::{
    cancellation::CancellationReason,
    error::{Builtin, bounded},
    handler::HandlerResult,
    panics::{self, Panic},
    telemetry::{FailedAttempt, traceparent},
};

/// Maximum size of a result, in bytes.
const RESULT_BYTES: usize = 1 << 20;

/// How the run of a handler ended.
pub(super) enum HandlerEnd {
    Returned(HandlerResult),
    Panicked(Panic),
    /// The handler was dropped because it went on after its token fired, or it was never started.
    Aborted,
}

/// Returns the settlement of an attempt whose handler ended, with the handler's last progress and log lines.
pub(super) fn decide(worker: &Worker, running: &RunningAttempt, end: HandlerEnd) -> Settlement {
    // The application's retry policy and the text of its errors can panic.
    let outcome = panics::catch(|| outcome(worker, running, end));
    let outcome = outcome.unwrap_or_else(|panic| Outcome::Failed { error: panicked(panic, false) });
    // No attempt follows a completed one.
    let span = (!matches!(outcome, Outcome::Completed { .. })).then(|| traceparent(running.info.scope.context()));
    if let Some(failed) = FailedAttempt::of(&outcome, running.started.elapsed()) {
        running.info.progress.log(failed.line(&running.info.scope));
    }
    let (progress, logs) = running.info.progress.finish();
    Settlement {
        span: span.flatten(),
        slow: running.started.elapsed() > worker.types[running.type_index].policy.slow_after,
        progress,
        logs,
        ..Settlement::new(running.lease, outcome, Builtin::Canceled.record(None))
    }
}

fn outcome(worker: &Worker, running: &RunningAttempt, end: HandlerEnd) -> Outcome {
    match (end, running.info.cancellation_reason()) {
        (HandlerEnd::Returned(Ok(result)), _) if result.len() > RESULT_BYTES => {
            let detail = format!("The result has {} bytes, {RESULT_BYTES} are allowed.", result.len());
            Outcome::Failed { error: Builtin::ResultTooLarge.record(Some(detail)) }
        }
        (HandlerEnd::Returned(Ok(result)), _) => Outcome::Completed { result },
        // A stopped handler did not finish its work. The reason of the stop decides, not the handler's error.
        (_, Some(CancellationReason::Canceled)) => canceled(),
        (_, Some(CancellationReason::Shutdown | CancellationReason::LeaseLost)) => Outcome::Released,
        (_, Some(CancellationReason::TimedOut)) => {
            let timeout = worker.types[running.type_index].policy.timeout;
            let error = Builtin::Timeout.record(Some(format!("It took longer than {timeout:?}.")));
            retry(worker, running, Failure::Retryable, error)
        }
        (HandlerEnd::Returned(Err(error)), None) => {
            let (failure, error) = error.record(worker.options.error_details);
            retry(worker, running, failure, error)
        }
        (HandlerEnd::Panicked(panic), None) => {
            retry(worker, running, Failure::Retryable, panicked(panic, worker.options.error_details))
        }
        // The handler fired its own token and went on.
        (HandlerEnd::Aborted, None) => canceled(),
    }
}

fn retry(worker: &Worker, running: &RunningAttempt, failure: Failure, error: ErrorRecord) -> Outcome {
    let policy = &worker.types[running.type_index].policy.retry;
    settle_failure(failure, error, running.retry_count, running.max_retries, policy, fastrand::f64())
}

/// The error of a panic. `details` also shows its message to callers.
fn panicked(panic: Panic, details: bool) -> ErrorRecord {
    let message = panic.message().to_owned();
    let record = Builtin::Panic.record(details.then(|| message.clone()));
    ErrorRecord { sources: bounded([message].into_iter().chain(panic.location)), ..record }
}

fn canceled() -> Outcome {
    Outcome::Canceled { error: Builtin::Canceled.record(None) }
}
