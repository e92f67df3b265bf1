//! The middleware around every attempt: runs the handler in the attempt's scope, and alone sees when it ends.

use std::sync::Arc;

use async_endpoints_core::store::Lease;
use async_trait::async_trait;
use bytes::Bytes;

use super::running::RunningTable;
use crate::{
    context::AttemptInfo,
    error::JobError,
    middleware::{Middleware, Next},
};

pub(crate) struct Observed(pub(crate) Arc<RunningTable>);

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

#[async_trait]
impl Middleware for Observed {
    async fn run(&self, attempt: &AttemptInfo, next: Next<'_>) -> Result<Bytes, JobError> {
        let _guard = HandlerGuard { running: &self.0, lease: attempt.lease };
        attempt.scope.run(next.run()).await
    }
}
