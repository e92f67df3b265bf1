//! The context that a handler receives. Must not know stores or HTTP.

mod follow_up;

pub use self::follow_up::{FollowUp, FollowUps};

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobName, Timestamp,
    job::{TraceContext, TraceParent},
    store::{Attempt, Lease, LeaseToken},
};
use async_endpoints_telemetry::{
    Scope,
    trace::{Context, TraceId},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    cancellation::{Cancellation, CancellationReason},
    envelope::RequestParts,
    error::JobError,
    new_job::Acceptor,
    owner::JobOwner,
    progress::{ProgressQueue, ProgressReporter},
};

/// The context of one attempt: the request, the attempt's data and its progress reporter.
///
/// Dereferences to [`AttemptInfo`].
pub struct JobContext<Req> {
    request: Req,
    info: Arc<AttemptInfo>,
    parts: RequestParts,
}

/// The data of one attempt without the request, as [`Middleware`](crate::Middleware) receives it.
#[derive(Debug)]
pub struct AttemptInfo {
    pub(crate) id: JobId,
    pub(crate) lease: Lease,
    pub(crate) name: JobName,
    pub(crate) attempt: u32,
    pub(crate) is_last: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) queue_time: Duration,
    pub(crate) deadline: Instant,
    pub(crate) owner: Option<JobOwner>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) previous_span: Option<TraceParent>,
    pub(crate) scope: Scope,
    pub(crate) cancellation: Cancellation,
    pub(crate) progress: ProgressReporter,
    pub(crate) acceptor: Arc<dyn Acceptor>,
}

impl AttemptInfo {
    pub(crate) fn new(
        attempt: &Attempt,
        scope: Scope,
        deadline: Instant,
        progress: ProgressReporter,
        acceptor: Arc<dyn Acceptor>,
    ) -> Self {
        Self {
            id: attempt.lease.job,
            lease: attempt.lease,
            name: attempt.name.clone(),
            attempt: attempt.attempt,
            is_last: attempt.retry_count >= attempt.max_retries,
            created_at: attempt.created_at,
            queue_time: attempt.started_at.since(attempt.runnable_since),
            deadline,
            owner: JobOwner::stored(attempt.owner, attempt.owner_label.as_ref()),
            trace: attempt.trace.clone(),
            previous_span: attempt.previous_span,
            scope,
            cancellation: Cancellation::default(),
            progress,
            acceptor,
        }
    }

    /// The job's id.
    pub fn job_id(&self) -> JobId {
        self.id
    }

    /// The job's type.
    pub fn job_name(&self) -> &JobName {
        &self.name
    }

    /// The attempt's number, from 1. Attempts of dead and stopped workers count as well.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether no retries are left, so that a failure is final.
    pub fn is_last_attempt(&self) -> bool {
        self.is_last
    }

    /// The time when the job was accepted.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The time from when the job became runnable to the start of this attempt.
    pub fn queue_time(&self) -> Duration {
        self.queue_time
    }

    /// The time when the attempt times out and its token fires.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The job's owner. `None` without an owner rule, and for a job submitted from code without an owner.
    pub fn owner(&self) -> Option<&JobOwner> {
        self.owner.as_ref()
    }

    /// The trace context of the submission: of the span `send <job name>`.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// The id of the attempt's own trace, as in its log lines. Differs from the submission's trace, unless
    /// [`Options::propagation`](crate::Options::propagation) is `child`.
    pub fn trace_id(&self) -> TraceId {
        self.scope.trace_id()
    }

    /// The attempt's own OpenTelemetry context, with the span `process <job name>`. It is the current context while the
    /// handler runs; a task or thread that the handler starts must attach it.
    pub fn context(&self) -> &Context {
        self.scope.context()
    }

    /// The `traceparent` of the previous attempt. `None` for the first attempt, and after one whose worker died.
    pub fn previous_span(&self) -> Option<TraceParent> {
        self.previous_span
    }

    /// The progress reporter of this attempt.
    pub fn progress(&self) -> &ProgressReporter {
        &self.progress
    }

    /// The token that fires when the attempt should stop: on cancellation, timeout, shutdown or a lost lease.
    ///
    /// A handler that goes on is aborted 5 s later.
    pub fn cancellation(&self) -> &CancellationToken {
        self.cancellation.token()
    }

    /// Why the token has fired. `None` until then, and if the handler fired the token itself.
    ///
    /// ```
    /// # use async_endpoints::{CancellationReason, JobContext, JobError};
    /// async fn export(ctx: JobContext<()>) -> Result<(), JobError> {
    ///     ctx.cancellation().cancelled().await;
    ///     if ctx.cancellation_reason() == Some(CancellationReason::Canceled) {
    ///         // The file is not wanted any more: delete it. Otherwise, the next attempt continues it.
    ///     }
    ///     ctx.check_canceled()
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = JobContext::for_test(()).with_cancellation(CancellationReason::Shutdown);
    /// assert!(export(ctx).await.is_err());
    /// # }
    /// ```
    pub fn cancellation_reason(&self) -> Option<CancellationReason> {
        self.cancellation.reason()
    }

    /// Returns [`JobError::canceled`] if the token has fired.
    pub fn check_canceled(&self) -> Result<(), JobError> {
        if self.cancellation().is_cancelled() { Err(JobError::canceled()) } else { Ok(()) }
    }
}

impl<Req> JobContext<Req> {
    pub(crate) fn new(request: Req, info: Arc<AttemptInfo>, parts: RequestParts) -> Self {
        Self { request, info, parts }
    }

    /// Creates a context for a handler test: the first attempt of a job of type `test`, with a timeout of 30 minutes.
    ///
    /// ```
    /// # use async_endpoints::{JobContext, JobError};
    /// async fn double(ctx: JobContext<u32>) -> Result<u32, JobError> {
    ///     ctx.progress().set(1, 1);
    ///     Ok(2 * ctx.request())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = JobContext::for_test(21).with_attempt(2, true).with_header("x-user-id", "7");
    /// let progress = ctx.progress().clone();
    /// assert_eq!(double(ctx).await.unwrap(), 42);
    /// assert_eq!(progress.current().unwrap().percent, Some(100.0));
    /// # }
    /// ```
    pub fn for_test(request: Req) -> Self {
        let id = JobId(Uuid::now_v7());
        let lease = Lease { job: id, token: LeaseToken::random() };
        let info = AttemptInfo {
            id,
            lease,
            name: JobName::new("test").unwrap_or_else(|_| unreachable!("a valid name")),
            attempt: 1,
            is_last: false,
            created_at: std::time::SystemTime::now().into(),
            queue_time: Duration::ZERO,
            deadline: Instant::now() + Duration::from_secs(30 * 60),
            owner: None,
            trace: None,
            previous_span: None,
            scope: Scope::unrecorded(),
            cancellation: Cancellation::default(),
            progress: Arc::<ProgressQueue>::default().reporter(lease),
            acceptor: Arc::new(FollowUps::default()),
        };
        Self::new(request, Arc::new(info), RequestParts::default())
    }

    /// Sets the attempt's number and whether it is the last one, in a test.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, is_last: bool) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            (info.attempt, info.is_last) = (attempt, is_last);
        }
        self
    }

    /// Sets the job's id, in a test, for example to run two attempts of one job.
    #[must_use]
    pub fn with_job_id(mut self, id: JobId) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            info.id = id;
        }
        self
    }

    /// Fires the token for this reason, in a test.
    #[must_use]
    pub fn with_cancellation(self, reason: CancellationReason) -> Self {
        self.info.cancellation.fire(reason);
        self
    }

    /// Sets the job's owner, with its name as label, in a test.
    #[must_use]
    pub fn with_owner(mut self, name: &str) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            info.owner = Some(JobOwner::new(name, true));
        }
        self
    }

    /// Adds a captured header, in a test.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.parts.headers.push((name.to_lowercase(), value.to_owned()));
        self
    }

    /// Adds a path parameter, in a test.
    #[must_use]
    pub fn with_path_param(mut self, name: &str, value: &str) -> Self {
        self.parts.path.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a query parameter, in a test.
    #[must_use]
    pub fn with_query_param(mut self, name: &str, value: &str) -> Self {
        self.parts.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The submitted request.
    pub fn request(&self) -> &Req {
        &self.request
    }

    /// Splits the context into the request and the rest.
    pub fn into_parts(self) -> (Req, JobContext<()>) {
        (self.request, JobContext { request: (), info: self.info, parts: self.parts })
    }

    /// The first captured header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.parts.headers, |n| n.eq_ignore_ascii_case(name))
    }

    /// All captured headers, with names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.parts.headers)
    }

    /// A parameter of the endpoint's path.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        first(&self.parts.path, |n| n == name)
    }

    /// All parameters of the endpoint's path, in the order of the path.
    pub fn path_params(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.parts.path)
    }

    /// The first query parameter of this name.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        first(&self.parts.query, |n| n == name)
    }

    /// All values of a query parameter: `?tag=a&tag=b` has two.
    pub fn query_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        pairs(&self.parts.query).filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All query parameters, in the order of the query. A repeated one occurs several times.
    pub fn query_params(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.parts.query)
    }
}

impl<Req> std::ops::Deref for JobContext<Req> {
    type Target = AttemptInfo;

    fn deref(&self) -> &AttemptInfo {
        &self.info
    }
}

impl<Req: fmt::Debug> fmt::Debug for JobContext<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext").field("request", &self.request).field("info", &self.info).finish_non_exhaustive()
    }
}

fn pairs(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn first(pairs: &[(String, String)], matches: impl Fn(&str) -> bool) -> Option<&str> {
    pairs.iter().find(|(name, _)| matches(name)).map(|(_, value)| value.as_str())
}
