//! Runs the handler of every attempt in the attempt's scope, and alone sees when it ends.

use async_endpoints_core::store::Lease;

use super::running::RunningTable;
use crate::context::AttemptInfo;

/// Records the handler's end on drop: after its return, its panic, or its cancellation.
struct HandlerGuard<'a> {
    running: &'a RunningTable,
    lease: Lease,
}

impl Drop for HandlerGuard<'_> {
    fn drop(&mut self) {
        self.running.handler_ended(self.lease);
    }
}

/// Runs a handler with all middleware.
pub(crate) async fn run_handler<F: Future>(running: &RunningTable, attempt: &AttemptInfo, handler: F) -> F::Output {
    let _guard = HandlerGuard { running, lease: attempt.lease };
    attempt.scope.run(handler).await
}
