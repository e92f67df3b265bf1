//! Middleware around every attempt. Must not know how attempts are claimed or settled.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{context::AttemptInfo, error::JobError, handler::HandlerFuture};

/// Wraps every attempt of every job type. The first middleware added is the outermost.
///
/// ```
/// # use async_endpoints::{AttemptInfo, Bytes, JobError, Middleware, Next, async_trait};
/// struct Audit;
///
/// #[async_trait]
/// impl Middleware for Audit {
///     async fn run(&self, attempt: &AttemptInfo, next: Next<'_>) -> Result<Bytes, JobError> {
///         let ended = next.run().await;
///         println!("{} {} ok: {}", attempt.job_name(), attempt.job_id(), ended.is_ok());
///         ended
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Runs one attempt by calling [`Next::run`] once. The result is the handler's JSON.
    async fn run(&self, attempt: &AttemptInfo, next: Next<'_>) -> Result<Bytes, JobError>;
}

/// The inner middlewares and the handler.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    info: &'a AttemptInfo,
    handler: HandlerFuture,
}

impl<'a> Next<'a> {
    pub(crate) fn new(rest: &'a [Arc<dyn Middleware>], info: &'a AttemptInfo, handler: HandlerFuture) -> Self {
        Self { rest, info, handler }
    }

    /// Runs the inner middlewares and the handler.
    pub async fn run(self) -> Result<Bytes, JobError> {
        match self.rest.split_first() {
            Some((first, rest)) => first.run(self.info, Next { rest, ..self }).await,
            None => self.handler.await,
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("middlewares", &self.rest.len()).finish_non_exhaustive()
    }
}
