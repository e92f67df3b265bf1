//! One attempt: runs the handler within its limits and says what its end means for the job.
//!
//! If the process dies here, or this task is dropped, nothing is settled: the lease runs out and the job is
//! recovered. See `Ending`.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use async_endpoints_core::{
    job::ErrorRecord,
    lifecycle::{Failure, settle_failure},
    store::{Outcome, Settle},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Worker,
    running::{Ending, GRACE, Running, Table, Why},
    settler::{Held, Settling},
    slots::Permit,
    supervise::panic_message,
};
use crate::{error::Builtin, handler::Ended, middleware::Next};

/// Bytes of a result that a job keeps.
const RESULT_BYTES: usize = 1 << 20;

/// How a handler's run ended.
enum End {
    Returned(Ended),
    Panicked(Box<dyn Any + Send>),
    /// It went on after its token fired, and was dropped.
    Aborted,
}

/// Runs an attempt that was claimed, and hands its end to the settler.
pub(super) async fn run(worker: Arc<Worker>, running: Arc<Running>, payload: Bytes, permit: Arc<Permit>) {
    // Dropped with this task, whatever happens: then the lease runs out.
    let seat = Seat { running: &running, table: &worker.table };
    let end = within_limits(&running, handler(&worker, &running, payload, &permit)).await;
    if matches!(end, End::Aborted) && Arc::strong_count(&permit) > 1 {
        permit.mark_leaked();
    }
    let Some(ending) = Ending::of(seat.running, seat.table) else {
        return; // The keeper ended it while this thread was blocked.
    };
    let settle = settle(&worker, &running, end);
    worker.settler.send(Settling { settle, held: Held { ending, permit: Some(permit) } });
}

/// Ends an attempt whose own task cannot, as its thread is blocked: its slot stays taken.
pub(super) fn take_over(worker: &Worker, running: &Arc<Running>, why: Why) -> Option<Settling> {
    let ending = Ending::of(running, &worker.table)?;
    running.stop(why);
    running.mark_leaked();
    Some(Settling { settle: settle(worker, running, End::Aborted), held: Held { ending, permit: None } })
}

struct Seat<'a> {
    running: &'a Arc<Running>,
    table: &'a Arc<Table>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        drop(Ending::of(self.running, self.table));
    }
}

/// The handler with all middleware around it.
fn handler(worker: &Arc<Worker>, running: &Running, payload: Bytes, permit: &Arc<Permit>) -> BoxFuture<'static, Ended> {
    let (worker, info) = (worker.clone(), running.info.clone());
    let handler = worker.kinds[running.kind].handler.clone().call(info.clone(), payload, permit.clone());
    if worker.middlewares.is_empty() {
        return handler;
    }
    Box::pin(async move { Next::new(&worker.middlewares, &info, handler).run().await })
}

async fn within_limits(running: &Running, handler: BoxFuture<'static, Ended>) -> End {
    let ended = |end: std::thread::Result<Ended>| end.map_or_else(End::Panicked, End::Returned);
    let mut handler = AssertUnwindSafe(handler).catch_unwind();
    tokio::select! {
        biased;
        end = &mut handler => return ended(end),
        () = running.info.cancellation.cancelled() => {}
        () = tokio::time::sleep_until(running.info.deadline.into()) => running.stop(Why::TimedOut),
    }
    if let Ok(end) = tokio::time::timeout(GRACE, &mut handler).await {
        return ended(end);
    }
    // Dropping runs the handler's destructors, which may panic as well.
    match std::panic::catch_unwind(AssertUnwindSafe(|| drop(handler))) {
        Ok(()) => End::Aborted,
        Err(panic) => End::Panicked(panic),
    }
}

fn settle(worker: &Worker, running: &Running, end: End) -> Settle {
    Settle {
        lease: running.lease,
        outcome: outcome(worker, running, end),
        if_canceled: canceled(),
        slow: running.started.elapsed() > worker.kinds[running.kind].policy.slow_after,
        span: None,
    }
}

/// What the end of a handler means for its job.
fn outcome(worker: &Worker, running: &Running, end: End) -> Outcome {
    let detail = |text: &str| worker.options.error_details.then(|| text.to_owned());
    match (end, running.why()) {
        (End::Returned(Ok(result)), _) if result.len() > RESULT_BYTES => {
            let detail = format!("The result has {} bytes, {RESULT_BYTES} are allowed.", result.len());
            Outcome::Failed { error: Builtin::ResultTooLarge.record(Some(detail)) }
        }
        (End::Returned(Ok(result)), _) => Outcome::Completed { result },
        // Told to stop, it did not finish its work: why it was told decides, not how it gave up.
        (_, Some(Why::Canceled)) => Outcome::Canceled { error: canceled() },
        (_, Some(Why::Shutdown | Why::LeaseLost)) => Outcome::Released,
        (_, Some(Why::TimedOut)) => {
            let timeout = worker.kinds[running.kind].policy.timeout;
            let error = Builtin::Timeout.record(Some(format!("It took longer than {timeout:?}.")));
            retry(worker, running, Failure::Retryable, error)
        }
        (End::Returned(Err(error)), None) => {
            let (failure, error) = error.record(worker.options.error_details);
            retry(worker, running, failure, error)
        }
        (End::Panicked(panic), None) => {
            let error = Builtin::Panic.record(detail(panic_message(&*panic)));
            retry(worker, running, Failure::Retryable, error)
        }
        // Nothing is aborted without a reason.
        (End::Aborted, None) => Outcome::Released,
    }
}

fn retry(worker: &Worker, running: &Running, failure: Failure, error: ErrorRecord) -> Outcome {
    let policy = &worker.kinds[running.kind].policy.retry;
    settle_failure(failure, error, running.retry_count, running.max_retries, policy, fastrand::f64())
}

fn canceled() -> ErrorRecord {
    Builtin::Canceled.record(None)
}
