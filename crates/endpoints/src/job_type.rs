//! A job type: one typed name and its rules, shared by the process that accepts and the process that works.

use std::{fmt, marker::PhantomData, time::Duration};

use async_endpoints_core::{JobName, Priority, RetryPolicy, store::TypeCutoffs};

use crate::{options::Options, worker::LATEST_END};

/// The name of a kind of job, the types of its request and its result, and how it is run.
///
/// A constant, used wherever the job is accepted, run or submitted from code, so that all agree. What it
/// leaves open, [`Options`] decides.
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

/// What a job type says of itself; `None` leaves it to the options.
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
    pub(crate) delay: Option<Duration>,
}

impl<Req, Res> JobType<Req, Res> {
    /// The type of that name: 1 to 100 characters of `A-Z a-z 0-9 . _ -`, checked when the endpoints are built.
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
            delay: None,
        };
        Self { name, rules, types: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How often a failed attempt is tried again. Default: `Options::max_retries`.
    #[must_use]
    pub const fn max_retries(mut self, retries: u32) -> Self {
        self.rules.max_retries = Some(retries);
        self
    }

    /// How long to wait before each of them. Default: exponential from `Options::retry_base`.
    #[must_use]
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.rules.retry = Some(policy);
        self
    }

    /// How long one attempt may take. Default: `Options::job_timeout`.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.rules.timeout = Some(timeout);
        self
    }

    /// From when on an attempt counts as slow. Default: `Options::slow_after`.
    #[must_use]
    pub const fn slow_after(mut self, slow: Duration) -> Self {
        self.rules.slow_after = Some(slow);
        self
    }

    /// How many attempts of this type one process runs at once. Default: as many as it has slots.
    #[must_use]
    pub const fn concurrency(mut self, attempts: u32) -> Self {
        self.rules.concurrency = Some(attempts);
        self
    }

    /// Which jobs go first. Default: 4.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.rules.priority = Some(priority);
        self
    }

    /// How long an ended job stays readable. Default: `Options::retention`.
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.rules.retention = Some(retention);
        self
    }

    /// How many jobs of this type may wait. Default: `Options::max_queue_size`.
    #[must_use]
    pub const fn max_queue_size(mut self, jobs: u64) -> Self {
        self.rules.max_queue_size = Some(jobs);
        self
    }

    /// How long an accepted job waits before it may start. Default: not at all.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.rules.delay = Some(delay);
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

/// The rules of a type with nothing left open.
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
    pub(crate) delay: Duration,
}

impl Policy {
    /// What counts as slow, overdue and stuck.
    pub(crate) fn cutoffs(&self, name: &JobName, options: &Options) -> TypeCutoffs {
        TypeCutoffs {
            name: name.clone(),
            slow_after: self.slow_after,
            overdue_after: self.timeout.saturating_add(LATEST_END),
            stuck_after: options.stuck_after,
        }
    }
}

impl Rules {
    pub(crate) fn resolve(&self, options: &Options) -> Policy {
        Policy {
            max_retries: self.max_retries.unwrap_or(options.max_retries),
            retry: self.retry.unwrap_or(RetryPolicy::exponential(options.retry_base)),
            timeout: self.timeout.unwrap_or(options.job_timeout),
            slow_after: self.slow_after.unwrap_or(options.slow_after),
            concurrency: self.concurrency.unwrap_or(options.concurrency).clamp(1, options.concurrency),
            priority: self.priority.unwrap_or_default(),
            retention: self.retention.unwrap_or(options.retention),
            max_queue_size: self.max_queue_size.unwrap_or(options.max_queue_size),
            delay: self.delay.unwrap_or_default(),
        }
    }
}
