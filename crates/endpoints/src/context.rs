//! What a handler gets, and how it tells how far it is. Must not know stores or HTTP.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobName, Timestamp,
    job::TraceContext,
    store::{Attempt, Lease, LeaseToken, ReportedProgress},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    envelope::RequestParts,
    error::{JobError, cut},
    sync::Mutex,
};

/// Bytes of a progress message that are kept.
const MESSAGE_BYTES: usize = 1 << 10;

/// One attempt of a job, as its handler sees it: the request, where the attempt stands, and how to tell progress.
pub struct JobContext<Req> {
    request: Req,
    info: Arc<AttemptInfo>,
    parts: RequestParts,
}

/// One attempt of a job, as [`Middleware`](crate::Middleware) sees it: all but the request.
#[derive(Debug)]
pub struct AttemptInfo {
    pub(crate) id: JobId,
    pub(crate) lease: Lease,
    pub(crate) name: JobName,
    pub(crate) attempt: u32,
    pub(crate) last: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) queue_time: Duration,
    pub(crate) deadline: Instant,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) previous_span: Option<String>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) progress: ProgressReporter,
}

impl AttemptInfo {
    pub(crate) fn new(attempt: &Attempt, deadline: Instant, progress: ProgressReporter) -> Self {
        Self {
            id: attempt.lease.job,
            lease: attempt.lease,
            name: attempt.name.clone(),
            attempt: attempt.attempt,
            last: attempt.retry_count >= attempt.max_retries,
            created_at: attempt.created_at,
            queue_time: attempt.started_at.since(attempt.runnable_since),
            deadline,
            trace: attempt.trace.clone(),
            previous_span: attempt.previous_span.clone(),
            cancellation: CancellationToken::new(),
            progress,
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

    /// 1 for the first start, counting also those that a dead or stopped worker did not finish.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether a failure now is final: no retries are left.
    pub fn is_last_attempt(&self) -> bool {
        self.last
    }

    /// When the job was accepted.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// How long this attempt waited from when it could have started.
    pub fn queue_time(&self) -> Duration {
        self.queue_time
    }

    /// When the attempt times out: its token fires then.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The trace context that the request came with.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// The `traceparent` of the attempt before, if it told one.
    pub fn previous_span(&self) -> Option<&str> {
        self.previous_span.as_deref()
    }

    /// Tells how far the handler is.
    pub fn progress(&self) -> &ProgressReporter {
        &self.progress
    }

    /// Fires when the attempt should stop: the job was canceled, it timed out, the worker shuts down, or its
    /// lease was lost. A handler that goes on is aborted some seconds later.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Whether the token has fired, as an error to pass on with `?`.
    pub fn check_canceled(&self) -> Result<(), JobError> {
        if self.cancellation.is_cancelled() { Err(JobError::canceled()) } else { Ok(()) }
    }
}

impl<Req> JobContext<Req> {
    pub(crate) fn new(request: Req, info: Arc<AttemptInfo>, parts: RequestParts) -> Self {
        Self { request, info, parts }
    }

    /// A context for a test of a handler: first attempt of a job of type `test`, due in half an hour.
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
        let info = AttemptInfo {
            id,
            lease: Lease { job: id, token: LeaseToken::random() },
            name: JobName::new("test").unwrap_or_else(|_| unreachable!("a good name")),
            attempt: 1,
            last: false,
            created_at: std::time::SystemTime::now().into(),
            queue_time: Duration::ZERO,
            deadline: Instant::now() + Duration::from_secs(30 * 60),
            trace: None,
            previous_span: None,
            cancellation: CancellationToken::new(),
            progress: ProgressReporter::new(|| {}),
        };
        Self::new(request, Arc::new(info), RequestParts::default())
    }

    /// Makes it another attempt, the last one or not, in a test.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, last: bool) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            (info.attempt, info.last) = (attempt, last);
        }
        self
    }

    /// Makes it an attempt of that job, in a test: of the same one twice, for example.
    #[must_use]
    pub fn with_job_id(mut self, id: JobId) -> Self {
        if let Some(info) = Arc::get_mut(&mut self.info) {
            info.id = id;
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

    /// What was submitted.
    pub fn request(&self) -> &Req {
        &self.request
    }

    /// What was submitted, by value, and the context without it.
    pub fn into_parts(self) -> (Req, JobContext<()>) {
        (self.request, JobContext { request: (), info: self.info, parts: self.parts })
    }

    /// A captured header of the request, by name in any case; the first if it came more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.parts.headers, |n| n.eq_ignore_ascii_case(name))
    }

    /// All captured headers, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter of the endpoint's path.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        first(&self.parts.path, |n| n == name)
    }

    /// A parameter of the request's query; the first if it came more than once.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        first(&self.parts.query, |n| n == name)
    }
}

/// The attempt's own methods can be called on the context.
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

fn first(pairs: &[(String, String)], is: impl Fn(&str) -> bool) -> Option<&str> {
    pairs.iter().find(|(name, _)| is(name)).map(|(_, value)| value.as_str())
}

/// Tells how far an attempt is. Cheap to call often and to clone; what was told last is stored within half a second.
#[derive(Clone)]
pub struct ProgressReporter(Arc<Reporter>);

struct Reporter<F: ?Sized = dyn Fn() + Send + Sync> {
    told: Mutex<Told>,
    /// Held by who sends it: of two calls under way, the older could come last.
    turn: tokio::sync::Mutex<()>,
    changed: F,
}

#[derive(Default)]
struct Told {
    progress: Option<ReportedProgress>,
    /// How often something was told, and up to which time it is known to be stored.
    times: u64,
    stored: u64,
    /// Somebody was called to send it.
    announced: bool,
}

impl ProgressReporter {
    /// `changed` is called when there is something to send, once until it is taken.
    pub(crate) fn new(changed: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Reporter { told: Mutex::default(), turn: tokio::sync::Mutex::default(), changed }))
    }

    /// `completed` of `total` units are done.
    pub fn set(&self, completed: u64, total: u64) {
        let percent = if total == 0 { 100.0 } else { completed as f64 * 100.0 / total as f64 };
        self.tell(|progress| {
            (progress.completed, progress.total) = (completed, Some(total));
            progress.percent = raised(progress.percent, percent);
        });
    }

    /// `completed` units are done, of nobody knows how many.
    pub fn completed(&self, completed: u64) {
        self.tell(|progress| progress.completed = completed);
    }

    /// That many percent are done.
    pub fn percent(&self, percent: f64) {
        self.tell(|progress| progress.percent = raised(progress.percent, percent));
    }

    /// What is being done; at most 1 KiB is kept.
    pub fn message(&self, message: impl Into<String>) {
        let message = cut(message.into(), MESSAGE_BYTES);
        self.tell(|progress| progress.message = Some(message));
    }

    /// What was told last.
    pub fn current(&self) -> Option<ReportedProgress> {
        self.told().progress.clone()
    }

    /// What was told and is not known to be stored, and its number. What is told from now on is announced again.
    pub(crate) fn unstored(&self) -> Option<(u64, ReportedProgress)> {
        let mut told = self.told();
        told.announced = false;
        let progress = told.progress.as_ref().filter(|_| told.times > told.stored)?;
        Some((told.times, progress.clone()))
    }

    /// Who sends what is not stored holds this from before it looks until the store has answered.
    pub(crate) fn turn(&self) -> &tokio::sync::Mutex<()> {
        &self.0.turn
    }

    /// The store has what was told by that number.
    pub(crate) fn stored(&self, number: u64) {
        let mut told = self.told();
        told.stored = told.stored.max(number);
    }

    /// Calls somebody to send what is not stored.
    pub(crate) fn announce(&self) {
        if !std::mem::replace(&mut self.told().announced, true) {
            (self.0.changed)();
        }
    }

    fn tell(&self, change: impl FnOnce(&mut ReportedProgress)) {
        let none = ReportedProgress { completed: 0, total: None, percent: None, message: None };
        let mut told = self.told();
        told.times += 1;
        change(told.progress.get_or_insert(none));
        drop(told);
        self.announce();
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.told.lock()
    }
}

/// The higher of the two, from 0 to 100: progress never falls within an attempt. What is no number changes nothing.
fn raised(before: Option<f64>, percent: f64) -> Option<f64> {
    if percent.is_nan() { before } else { Some(percent.clamp(0.0, 100.0).max(before.unwrap_or(0.0))) }
}

impl fmt::Debug for ProgressReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProgressReporter").field(&self.current()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_never_falls_and_is_always_a_percentage() {
        let progress = ProgressReporter::new(|| {});
        let percent = || progress.current().and_then(|told| told.percent);
        progress.set(50, 100);
        progress.percent(20.0);
        progress.percent(f64::NAN);
        assert_eq!(percent(), Some(50.0));
        progress.set(7, 5);
        assert_eq!(percent(), Some(100.0));
        progress.set(0, 0);
        assert_eq!(percent(), Some(100.0));
    }

    #[test]
    fn what_was_told_is_announced_once_and_unstored_until_it_is_stored() {
        let announced = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = announced.clone();
        let progress = ProgressReporter::new(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let announced = || announced.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(progress.unstored(), None);
        progress.completed(1);
        progress.message("x".repeat(5000));
        assert_eq!(announced(), 1);
        let (number, told) = progress.unstored().expect("told");
        assert_eq!((told.completed, told.message.map(|message| message.len())), (1, Some(1024)));
        progress.completed(2);
        assert_eq!(announced(), 2, "after it was taken");
        progress.stored(number);
        let (number, told) = progress.unstored().expect("told meanwhile");
        assert_eq!(told.completed, 2);
        progress.stored(number);
        assert_eq!(progress.unstored(), None);
    }
}
