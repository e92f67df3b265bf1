//! A job type: a typed name and its rules, shared by the processes that accept and run its jobs.

use std::{fmt, marker::PhantomData, time::Duration};

use async_endpoints_core::{JobName, Priority, RetryPolicy, store::TypeCutoffs};

use crate::{
    domain::{DomainError, DomainErrors},
    options::Options,
};

/// Time between the firing of an attempt's token and the abort of its handler.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(5);
/// Time after the abort when the keeper settles an attempt in place of its own task, whose thread is blocked.
pub(crate) const BLOCKED_GRACE: Duration = Duration::from_secs(2);

/// Default of [`JobType::queue_depth`].
pub(crate) const QUEUE_DEPTH: u64 = 100;

/// A job type: its name, the types of its request and its result, and its rules.
///
/// Declare it as a constant and use the constant wherever jobs of the type are accepted, run or submitted from code.
/// [`Options`] has the defaults of all rules. The build of the endpoints refuses a concurrency of zero, and a
/// timeout or retention below 1 ms.
///
/// ```
/// # use std::time::Duration;
/// # use async_endpoints::{JobType, Priority, RetryPolicy};
/// # #[derive(serde::Deserialize)] struct Report; #[derive(serde::Serialize)] struct Pages;
/// pub const RENDER_REPORT: JobType<Report, Pages> = JobType::new("RenderReport")
///     .timeout(Duration::from_secs(120))
///     .max_retries(5)
///     .retry(RetryPolicy::exponential(Duration::from_secs(1)))
///     .concurrency(2)
///     .priority(Priority::new(7));
/// assert_eq!(RENDER_REPORT.name(), "RenderReport");
/// ```
pub struct JobType<Req, Res> {
    name: &'static str,
    pub(crate) rules: Rules,
    types: PhantomData<fn(Req) -> Res>,
}

/// The rules of a job type. `None` means the default of [`Options`].
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) slow_after: Option<Duration>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) priority: Option<Priority>,
    pub(crate) retention: Option<Duration>,
    pub(crate) max_queue_size: Option<u64>,
    pub(crate) queue_depth: Option<u64>,
    pub(crate) delay: Option<Duration>,
    pub(crate) error_codes: &'static [&'static str],
    pub(crate) errors: Option<DomainErrors>,
}

impl<Req, Res> JobType<Req, Res> {
    /// Creates a job type. The name has 1 to 100 characters from `A-Z a-z 0-9 . _ -`, checked when the endpoints are built.
    pub const fn new(name: &'static str) -> Self {
        let rules = Rules {
            max_retries: None,
            retry: None,
            timeout: None,
            slow_after: None,
            concurrency: None,
            priority: None,
            retention: None,
            max_queue_size: None,
            queue_depth: None,
            delay: None,
            error_codes: &[],
            errors: None,
        };
        Self { name, rules, types: PhantomData }
    }

    /// The type's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Sets the maximum number of retries. Defaults to [`Options::max_retries`].
    #[must_use]
    pub const fn max_retries(mut self, retries: u32) -> Self {
        self.rules.max_retries = Some(retries);
        self
    }

    /// Sets the policy for the delay of retries. Defaults to exponential delays from [`Options::retry_base`].
    #[must_use]
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.rules.retry = Some(policy);
        self
    }

    /// Sets the timeout of an attempt. Defaults to [`Options::job_timeout`].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.rules.timeout = Some(timeout);
        self
    }

    /// Sets the duration from which on an attempt counts as slow. Defaults to [`Options::slow_after`].
    #[must_use]
    pub const fn slow_after(mut self, slow: Duration) -> Self {
        self.rules.slow_after = Some(slow);
        self
    }

    /// Sets the maximum number of attempts that one process runs at once. Defaults to [`Options::concurrency`].
    #[must_use]
    pub const fn concurrency(mut self, attempts: u32) -> Self {
        self.rules.concurrency = Some(attempts);
        self
    }

    /// Sets the priority. Defaults to 4.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.rules.priority = Some(priority);
        self
    }

    /// Sets how long an ended job stays readable. Defaults to [`Options::retention`].
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.rules.retention = Some(retention);
        self
    }

    /// Sets the maximum number of waiting jobs. Defaults to [`Options::max_queue_size`].
    #[must_use]
    pub const fn max_queue_size(mut self, jobs: u64) -> Self {
        self.rules.max_queue_size = Some(jobs);
        self
    }

    /// Sets the number of queued jobs from which on the health check `asyncendpoints.queuedepth` is Degraded. Defaults to 100.
    #[must_use]
    pub const fn queue_depth(mut self, jobs: u64) -> Self {
        self.rules.queue_depth = Some(jobs);
        self
    }

    /// Sets the delay between the acceptance and the start of a job. Defaults to zero.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.rules.delay = Some(delay);
        self
    }

    /// Declares the error codes of the handler, so that their counters exist at zero before the first failure. `rate()`
    /// and `increase()` do not see the first failure with an undeclared code, which is counted all the same.
    #[must_use]
    pub const fn error_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.rules.error_codes = codes;
        self
    }

    /// Declares the error type of the handler. `?` on such an error makes a job error with its own code. Its
    /// [codes](DomainError::CODES) are those of [`error_codes`](Self::error_codes), and are in `/openapi.json`.
    #[must_use]
    pub const fn errors<E: DomainError>(mut self) -> Self {
        self.rules.error_codes = E::CODES;
        self.rules.errors = Some(DomainErrors::of::<E>());
        self
    }
}

impl<Req, Res> Copy for JobType<Req, Res> {}

impl<Req, Res> Clone for JobType<Req, Res> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Req, Res> fmt::Debug for JobType<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobType").field("name", &self.name).field("rules", &self.rules).finish()
    }
}

/// The rules of a job type with all defaults applied.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) max_retries: u32,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
    pub(crate) slow_after: Duration,
    pub(crate) concurrency: u32,
    pub(crate) priority: Priority,
    pub(crate) retention: Duration,
    pub(crate) max_queue_size: u64,
    pub(crate) queue_depth: u64,
    pub(crate) delay: Duration,
    pub(crate) error_codes: &'static [&'static str],
}

impl Policy {
    /// Thresholds for slow, overdue and stuck jobs.
    pub(crate) fn cutoffs(&self, name: &JobName, options: &Options) -> TypeCutoffs {
        TypeCutoffs {
            name: name.clone(),
            slow_after: self.slow_after,
            overdue_after: self.timeout.saturating_add(ABORT_GRACE + BLOCKED_GRACE),
            stuck_after: options.stuck_after,
        }
    }
}

/// The timeout of an attempt, from the thresholds of its type.
pub(crate) fn timeout_of(cutoffs: &TypeCutoffs) -> Duration {
    cutoffs.overdue_after.saturating_sub(ABORT_GRACE + BLOCKED_GRACE)
}

impl Rules {
    /// The first rule in which two declarations differ: its name and both values.
    pub(crate) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let mut pairs = self.texts().into_iter().zip(other.texts());
        pairs.find(|(own, other)| own != other).map(|((rule, first), (_, second))| (rule, first, second))
    }

    /// The rules as text, in the words of the builder's methods. The error type itself cannot be compared, its codes can.
    fn texts(&self) -> [(&'static str, String); 11] {
        fn text<T: fmt::Debug>(value: Option<T>) -> String {
            value.map_or_else(|| "the default".to_owned(), |value| format!("{value:?}"))
        }
        let Self { max_retries, retry, timeout, slow_after, concurrency, priority, retention, .. } = *self;
        let Self { max_queue_size, queue_depth, delay, error_codes, .. } = *self;
        [
            ("max_retries", text(max_retries)),
            ("retry", text(retry)),
            ("timeout", text(timeout)),
            ("slow_after", text(slow_after)),
            ("concurrency", text(concurrency)),
            ("priority", text(priority.map(Priority::get))),
            ("retention", text(retention)),
            ("max_queue_size", text(max_queue_size)),
            ("queue_depth", text(queue_depth)),
            ("delay", text(delay)),
            ("error_codes", text(Some(error_codes))),
        ]
    }

    pub(crate) fn resolve(&self, options: &Options) -> Policy {
        Policy {
            max_retries: self.max_retries.unwrap_or(options.max_retries),
            retry: self.retry.unwrap_or(RetryPolicy::exponential(options.retry_base)),
            timeout: self.timeout.unwrap_or(options.job_timeout),
            slow_after: self.slow_after.unwrap_or(options.slow_after),
            concurrency: self.concurrency.unwrap_or(options.concurrency).min(options.concurrency),
            priority: self.priority.unwrap_or_default(),
            retention: self.retention.unwrap_or(options.retention),
            max_queue_size: self.max_queue_size.unwrap_or(options.max_queue_size),
            queue_depth: self.queue_depth.unwrap_or(QUEUE_DEPTH),
            delay: self.delay.unwrap_or_default(),
            error_codes: self.error_codes,
        }
    }
}
