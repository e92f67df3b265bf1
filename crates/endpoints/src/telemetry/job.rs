//! The middleware around every attempt: it alone sees when a handler ends, before its end is on its way to the store.

use std::sync::Arc;

use async_endpoints_core::store::Lease;
use async_trait::async_trait;
use bytes::Bytes;

use super::running::Running;
use crate::{
    context::AttemptInfo,
    error::JobError,
    middleware::{Middleware, Next},
};

pub(crate) struct Observed(pub(crate) Arc<Running>);

/// Says that the handler has ended, however it does: by returning, by a panic, or because it was dropped.
struct Ends<'a> {
    running: &'a Running,
    lease: Lease,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.running.handler_ended(self.lease);
    }
}

#[async_trait]
impl Middleware for Observed {
    async fn run(&self, attempt: &AttemptInfo, next: Next<'_>) -> Result<Bytes, JobError> {
        let _ends = Ends { running: &self.0, lease: attempt.lease };
        next.run().await
    }
}
