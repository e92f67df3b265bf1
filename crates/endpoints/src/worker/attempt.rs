//! One attempt: runs the handler within its limits and says what its end means for the job.
//!
//! If the process dies here, or this task is dropped, nothing is settled: the lease runs out and the job is
//! recovered. See `Ending`.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use async_endpoints_core::{
    job::ErrorRecord,
    lifecycle::{Failure, settle_failure},
    store::{Outcome, Settlement},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Worker,
    running::{Ending, GRACE, Running, Why},
    settler::{Held, Settling},
    slots::Permit,
};
use crate::{
    error::{Builtin, panic_message},
    handler::Ended,
    middleware::Next,
};

/// Bytes of a result that a job keeps.
const RESULT_BYTES: usize = 1 << 20;

/// How a handler's run ended.
enum End {
    Returned(Ended),
    Panicked(Box<dyn Any + Send>),
    /// It went on after its token fired, and was dropped.
    Aborted,
}

/// An attempt that was claimed, with all that it holds. Dropped before its end, whatever happened, it lets the lease
/// run out.
pub(super) struct Seat {
    worker: Arc<Worker>,
    running: Arc<Running>,
}

impl Seat {
    pub(super) fn new(worker: Arc<Worker>, running: Arc<Running>) -> Self {
        worker.table.add(running.clone());
        Self { worker, running }
    }

    /// Runs the handler, and hands its end to the settler, and the permit with it: nothing here holds that any longer
    /// when the end is written.
    pub(super) async fn run(self, payload: Bytes, permit: Arc<Permit>) {
        let end = if self.worker.stopping.is_cancelled() {
            self.running.stop(Why::Shutdown);
            End::Aborted // It has not begun.
        } else {
            within_limits(&self.running, handler(&self, payload, &permit)).await
        };
        if matches!(end, End::Aborted) && Arc::strong_count(&permit) > 1 {
            permit.mark_leaked();
        }
        // None if the keeper ended it, as this thread was blocked.
        if let Some(ending) = Ending::of(&self.running, &self.worker.table) {
            let settle = settle(&self.worker, &self.running, end);
            let held = Held { permit: Some(permit), ending };
            self.worker.settler.send(Settling { settle, held });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        drop(Ending::of(&self.running, &self.worker.table));
    }
}

/// Ends an attempt in place of its own task, which cannot or must not go on.
pub(super) fn take_over(worker: &Worker, running: &Arc<Running>, why: Why) -> Option<Settling> {
    let ending = Ending::of(running, &worker.table)?;
    running.stop(why);
    Some(Settling { settle: settle(worker, running, End::Aborted), held: Held { permit: None, ending } })
}

/// The handler with all middleware around it.
fn handler(seat: &Seat, payload: Bytes, permit: &Arc<Permit>) -> BoxFuture<'static, Ended> {
    let (worker, info) = (seat.worker.clone(), seat.running.info.clone());
    let handler = worker.kinds[seat.running.kind].handler.clone().call(info.clone(), payload, permit.clone());
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

fn settle(worker: &Worker, running: &Running, end: End) -> Settlement {
    // What an application wrote can panic here as well: a retry policy, an error's text.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| outcome(worker, running, end)));
    Settlement {
        lease: running.lease,
        outcome: outcome.unwrap_or_else(|_| Outcome::Failed { error: Builtin::Panic.record(None) }),
        if_canceled: canceled(),
        slow: running.started.elapsed() > worker.kinds[running.kind].policy.slow_after,
        span: None,
        progress: None,
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
        // It fired its token itself and went on: it canceled itself.
        (End::Aborted, None) => Outcome::Canceled { error: canceled() },
    }
}

fn retry(worker: &Worker, running: &Running, failure: Failure, error: ErrorRecord) -> Outcome {
    let policy = &worker.kinds[running.kind].policy.retry;
    settle_failure(failure, error, running.retry_count, running.max_retries, policy, fastrand::f64())
}

fn canceled() -> ErrorRecord {
    Builtin::Canceled.record(None)
}
