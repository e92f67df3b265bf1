//! Runs one attempt: the handler with its middleware, within the attempt's time limits.
//!
//! If the process dies or the task is dropped, nothing is settled: the lease expires and the job is recovered.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt;

use super::{
    Worker,
    decide::{HandlerEnd, decide},
    running::{RunningAttempt, SettleGuard},
    settler::PendingSettlement,
    slots::Permit,
};
use crate::{
    cancellation::CancellationReason,
    handler::{HandlerFuture, HandlerResult},
    job_type::ABORT_GRACE,
    middleware::Next,
    panics::{self, Panic},
    telemetry::run_handler,
};

/// The task of one claimed attempt. Dropping it unsettled lets the lease expire.
pub(super) struct AttemptTask {
    worker: Arc<Worker>,
    running: Arc<RunningAttempt>,
}

impl AttemptTask {
    pub(super) fn new(worker: Arc<Worker>, running: Arc<RunningAttempt>) -> Self {
        worker.table.add(running.clone());
        Self { worker, running }
    }

    /// Runs the handler, decides the outcome and passes the settlement to the settler, with the permit.
    pub(super) async fn run(self, payload: Bytes, permit: Arc<Permit>) {
        let Self { worker, running } = &self;
        let end = if worker.stopping.is_cancelled() {
            running.stop(CancellationReason::Shutdown);
            HandlerEnd::Aborted
        } else if running.is_expired(Instant::now()) {
            // The process was suspended after it had sent the claim.
            running.stop(CancellationReason::LeaseLost);
            HandlerEnd::Aborted
        } else {
            run_within_limits(running, self.handler(payload, &permit)).await
        };
        // The handler's own thread still holds the permit.
        if matches!(end, HandlerEnd::Aborted) && Arc::strong_count(&permit) > 1 {
            permit.mark_leaked();
        }
        running.info.progress.report_ended().await;
        // The keeper may have settled the attempt while this thread was blocked.
        if let Some(guard) = SettleGuard::take(running, &worker.table, Some(permit)) {
            worker.settler.send(PendingSettlement { settlement: decide(worker, running, end), guard });
        }
    }

    /// The handler with all middleware around it. Boxed, because a task's future is moved several times before it runs.
    fn handler(&self, payload: Bytes, permit: &Arc<Permit>) -> HandlerFuture {
        let (worker, info) = (self.worker.clone(), self.running.info.clone());
        let handler = worker.types[self.running.type_index].handler.clone();
        let handler = handler.call(info.clone(), payload, permit.clone());
        Box::pin(async move {
            let next = Next::new(&worker.middlewares, &info, handler);
            run_handler(&worker.observed, &info, next.run()).await
        })
    }
}

impl Drop for AttemptTask {
    fn drop(&mut self) {
        drop(SettleGuard::take(&self.running, &self.worker.table, None));
    }
}

/// Settles an attempt in place of its own task, which is blocked or has to end. Returns `None` if the attempt is already
/// being settled.
pub(super) fn take_over(
    worker: &Worker,
    running: &Arc<RunningAttempt>,
    reason: CancellationReason,
) -> Option<PendingSettlement> {
    let guard = SettleGuard::take(running, &worker.table, None)?;
    running.stop(reason);
    Some(PendingSettlement { settlement: decide(worker, running, HandlerEnd::Aborted), guard })
}

async fn run_within_limits(running: &RunningAttempt, handler: impl Future<Output = HandlerResult>) -> HandlerEnd {
    // The location of a panic is known to the thread of the poll that panicked.
    let mut handler = std::pin::pin!(AssertUnwindSafe(handler).catch_unwind());
    let mut handler = poll_fn(move |cx| {
        panics::forget_location();
        let end = ready!(handler.as_mut().poll(cx));
        Poll::Ready(end.map_or_else(|panic| HandlerEnd::Panicked(Panic::caught(panic)), HandlerEnd::Returned))
    });
    tokio::select! {
        biased;
        end = &mut handler => return end,
        () = running.info.cancellation().cancelled() => {}
        () = tokio::time::sleep_until(running.info.deadline.into()) => running.stop(CancellationReason::TimedOut),
    }
    tokio::time::timeout(ABORT_GRACE, handler).await.unwrap_or(HandlerEnd::Aborted)
}
