//! The library's settings, with defaults and bounds. Must not know what the settings do.

mod dashboard;
mod vars;

use std::{fmt, time::Duration};

use serde::{Deserialize, de::IntoDeserializer};

pub use self::dashboard::{DashboardOptions, InstanceColor};
use self::vars::seconds;
pub(crate) use self::vars::{SECONDS, Vars, duration, env_var};

/// Minimum of a timeout and of a retention.
pub(crate) const SHORTEST_TIME: Duration = Duration::from_millis(1);

/// The library's settings. The defaults are meant for production.
///
/// ```
/// # use std::time::Duration;
/// # use async_endpoints::Options;
/// let options = Options { concurrency: 32, lease: Duration::from_secs(4), ..Options::default() };
/// let from_file: Options = serde_json::from_str(r#"{"concurrency": 32, "lease_seconds": 4}"#)?;
/// assert_eq!(options, from_file);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `CONCURRENCY`: maximum number of attempts that this process runs at once. Defaults to four per core.
    pub concurrency: u32,
    /// `MAX_QUEUE_SIZE`: maximum number of waiting jobs of one type. Defaults to 10 000.
    pub max_queue_size: u64,
    /// `MAX_RETRIES`: maximum number of retries of a failed job. Defaults to 3.
    pub max_retries: u32,
    /// `RETRY_BASE_SECONDS`: delay of the first retry, doubled with each further one, up to 1 h. Each delay is
    /// shortened at random by up to half. Defaults to 2 s.
    #[serde(rename = "retry_base_seconds", deserialize_with = "seconds")]
    pub retry_base: Duration,
    /// `JOB_TIMEOUT_SECONDS`: timeout of an attempt, at least 0.001 s. Defaults to 1800 s.
    #[serde(rename = "job_timeout_seconds", deserialize_with = "seconds")]
    pub job_timeout: Duration,
    /// `LEASE_SECONDS`: time without a renewal after which a worker loses its jobs. Defaults to 8 s.
    #[serde(rename = "lease_seconds", deserialize_with = "seconds")]
    pub lease: Duration,
    /// `MAX_LOSSES`: maximum number of workers that a job may lose before it fails. Defaults to 5.
    pub max_losses: u32,
    /// `RETENTION_SECONDS`: how long an ended job stays readable, at least 0.001 s. Defaults to 86400 s.
    #[serde(rename = "retention_seconds", deserialize_with = "seconds")]
    pub retention: Duration,
    /// `SHUTDOWN_SECONDS`: how long running attempts may continue after a stop request. Defaults to 30 s.
    #[serde(rename = "shutdown_seconds", deserialize_with = "seconds")]
    pub shutdown: Duration,
    /// `SHUTDOWN_DELAY_SECONDS`: time between a stop request and the drain. `/health/ready` answers 503 at once, and jobs are
    /// still accepted, so that load balancers can take the process out first. Defaults to 0 s.
    #[serde(rename = "shutdown_delay_seconds", deserialize_with = "seconds")]
    pub shutdown_delay: Duration,
    /// `ALERT_SLOW_SECONDS`: duration from which on an attempt counts as slow. Defaults to 30 s.
    #[serde(rename = "alert_slow_seconds", deserialize_with = "seconds")]
    pub slow_after: Duration,
    /// `ALERT_STUCK_SECONDS`: waiting time from which on a runnable job without a worker counts as stuck. Defaults to
    /// 600 s.
    #[serde(rename = "alert_stuck_seconds", deserialize_with = "seconds")]
    pub stuck_after: Duration,
    /// `MAX_CONNECTIONS`: maximum number of open connections of [`serve`](crate::AsyncEndpoints::serve). Further ones wait
    /// to be accepted. Defaults to 16 384. More than 10 000 clients may follow jobs in one process.
    pub max_connections: u32,
    /// `HEADER_READ_SECONDS`: time limit for a request's head, and for an idle connection between two requests, at least
    /// 0.001 s. Defaults to 30 s.
    #[serde(rename = "header_read_seconds", deserialize_with = "seconds")]
    pub header_read: Duration,
    /// `BASE_PATH`: prefix of job paths in `Location`, `links` and `/openapi.json`. Defaults to the mounted prefix. Set it if job routes and submit routes are mounted under different prefixes,
    /// or if a proxy strips a prefix.
    pub base_path: Option<String>,
    /// Shows callers the message of panics and of errors that a handler returned with `?`. Such text can contain secrets, so
    /// no environment variable changes it. Defaults to `false`.
    pub error_details: bool,
    /// `PROPAGATION`: relation of an attempt's trace to the submission's: `link`, `child` or `none`. Defaults to `link`.
    pub propagation: Propagation,
    /// `CAPTURE_LEVEL`: least severe level of the log lines that are kept with their job: `error`, `warn`, `info`, `debug`,
    /// `trace` or `off`. The subscriber needs the capture layer. Defaults to `info`.
    ///
    /// A job keeps the first 900 and the last 99 lines of an attempt, at most 256 KiB.
    pub capture_level: CaptureLevel,
    /// `EXPOSE_LOGS`: `true` shows callers the logs of their jobs, without the library's own lines. Handlers may log what
    /// callers must not see. With `false`, only operators can read logs. Defaults to `false`.
    pub expose_logs: bool,
    /// Shows operators the stored requests of jobs: body, captured headers, path and query parameters. Requests may contain
    /// what operators must not see: set [`Builder::redact_requests`](crate::Builder::redact_requests), too. No environment
    /// variable changes it. Defaults to `false`.
    pub expose_requests: bool,
    /// Keeps the name of each job's owner with the job, as text of at most 256 bytes. Operators see it in the job document
    /// and handlers in [`owner`](crate::AttemptInfo::owner). Without it, a job has only the SHA-256 of the name. Names are
    /// personal data, so no environment variable changes it. Defaults to `false`.
    pub owner_labels: bool,
    /// Request headers that handlers can read, in lower case. Defaults to `user-agent`, `x-request-id`, `x-user-id`,
    /// `x-forwarded-for` and `content-type`.
    ///
    /// `authorization`, `proxy-authorization`, `cookie`, `set-cookie` and `x-api-key` are captured only if they are named
    /// here. No captured header is logged; [`enrich`](Self::enrich) has the exceptions.
    pub captured_headers: Vec<String>,
    /// What the log lines of requests and attempts say about the caller. Defaults to nothing but the request id.
    pub enrich: Enrich,
    /// What the dashboard shows of this installation.
    pub dashboard: DashboardOptions,
}

/// The least severe level of the log lines that are kept with their job.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is named after its level")]
pub enum CaptureLevel {
    /// Keeps no lines of handlers.
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl CaptureLevel {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::deserialize(text.as_str().into_deserializer()).map_err(|_: serde::de::value::Error| ()).ok()
    }
}

/// Further fields of the log lines of requests and attempts. They are personal data, so all are off by default.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enrich {
    /// `user_id`: the header `x-user-id`, at most 256 bytes.
    pub user_id: bool,
    /// `client_address`: the address of the peer. [`serve`](crate::AsyncEndpoints::serve) provides it.
    pub client_address: bool,
    /// `user_agent`: the header `user-agent`, at most 256 bytes.
    pub user_agent: bool,
    /// Takes `client_address` from the last address in `x-forwarded-for`, which the nearest proxy added. Only behind a
    /// proxy that sets this header: any client can send it.
    pub trust_proxy: bool,
}

/// Relation of an attempt's trace to the trace of the submission. In all modes, an attempt is linked to the one before.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Each attempt begins a trace, with a link to the submission. A job may run days later, and several times.
    #[default]
    Link,
    /// Attempts are part of the submission's trace.
    Child,
    /// Each attempt begins a trace, without a link to the submission.
    None,
}

impl Propagation {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "link" => Some(Self::Link),
            "child" => Some(Self::Child),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let headers = ["user-agent", "x-request-id", "x-user-id", "x-forwarded-for", "content-type"];
        Self {
            concurrency: 4 * cores,
            max_queue_size: 10_000,
            max_retries: 3,
            retry_base: Duration::from_secs(2),
            job_timeout: Duration::from_secs(30 * 60),
            lease: Duration::from_secs(8),
            max_losses: 5,
            retention: Duration::from_secs(24 * 60 * 60),
            shutdown: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
            slow_after: Duration::from_secs(30),
            stuck_after: Duration::from_secs(600),
            max_connections: 16_384,
            header_read: Duration::from_secs(30),
            base_path: None,
            error_details: false,
            propagation: Propagation::Link,
            capture_level: CaptureLevel::Info,
            expose_logs: false,
            expose_requests: false,
            owner_labels: false,
            captured_headers: headers.map(str::to_owned).to_vec(),
            enrich: Enrich::default(),
            dashboard: DashboardOptions::default(),
        }
    }
}

/// An invalid setting.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {name} {value:?}: expected {expected}")]
pub struct OptionsError {
    /// The variable or field.
    pub name: String,
    /// The invalid value.
    pub value: String,
    /// A description of valid values.
    pub expected: String,
}

/// As [`Display`](fmt::Display): `main` prints this form of an error that it returns.
impl fmt::Debug for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Options {
    /// Reads `<prefix>CONCURRENCY` and the other variables from the environment. Unset and empty variables keep their
    /// defaults.
    pub fn from_env(prefix: &str) -> Result<Self, OptionsError> {
        Self::from_vars(prefix, env_var)
    }

    /// Reads the variables of [`from_env`](Self::from_env) from another source.
    pub fn from_vars(prefix: &str, vars: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        let vars = Vars { prefix, vars: &vars };
        vars.number("CONCURRENCY", &mut options.concurrency)?;
        vars.number("MAX_QUEUE_SIZE", &mut options.max_queue_size)?;
        vars.number("MAX_RETRIES", &mut options.max_retries)?;
        vars.number("MAX_LOSSES", &mut options.max_losses)?;
        vars.seconds("RETRY_BASE_SECONDS", &mut options.retry_base)?;
        vars.seconds("JOB_TIMEOUT_SECONDS", &mut options.job_timeout)?;
        vars.seconds("LEASE_SECONDS", &mut options.lease)?;
        vars.seconds("RETENTION_SECONDS", &mut options.retention)?;
        vars.seconds("SHUTDOWN_SECONDS", &mut options.shutdown)?;
        vars.seconds("SHUTDOWN_DELAY_SECONDS", &mut options.shutdown_delay)?;
        vars.seconds("ALERT_SLOW_SECONDS", &mut options.slow_after)?;
        vars.seconds("ALERT_STUCK_SECONDS", &mut options.stuck_after)?;
        vars.number("MAX_CONNECTIONS", &mut options.max_connections)?;
        vars.seconds("HEADER_READ_SECONDS", &mut options.header_read)?;
        vars.read("BASE_PATH", &mut options.base_path, "a path", |text| Some(Some(text.to_owned())))?;
        vars.read("PROPAGATION", &mut options.propagation, "link, child or none", Propagation::parse)?;
        let levels = "a level: off, error, warn, info, debug or trace";
        vars.read("CAPTURE_LEVEL", &mut options.capture_level, levels, CaptureLevel::parse)?;
        vars.read("EXPOSE_LOGS", &mut options.expose_logs, "a boolean: true or false", |text| text.parse().ok())?;
        options.dashboard.read(&vars)?;
        options.check(|field| format!("{prefix}{}", field.to_uppercase()))?;
        Ok(options)
    }

    /// Rejects invalid settings. `name_of` converts a field's name into its name in the error.
    pub(crate) fn check(&self, name_of: impl Fn(&str) -> String) -> Result<(), OptionsError> {
        let fail = |field: &str, value: &dyn fmt::Display, expected: &str| {
            Err(OptionsError { name: name_of(field), value: value.to_string(), expected: expected.to_owned() })
        };
        if !(1..=100_000).contains(&self.concurrency) {
            return fail("concurrency", &self.concurrency, "a number from 1 to 100000");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60)).contains(&self.lease) {
            return fail("lease_seconds", &self.lease.as_secs_f64(), "a number of seconds from 0.1 to 86400");
        }
        for (field, time) in [
            ("job_timeout_seconds", self.job_timeout),
            ("retention_seconds", self.retention),
            ("header_read_seconds", self.header_read),
        ] {
            if time < SHORTEST_TIME {
                return fail(field, &time.as_secs_f64(), "a number of seconds, 0.001 or more");
            }
        }
        if !(1..=1_000_000).contains(&self.max_connections) {
            return fail("max_connections", &self.max_connections, "a number from 1 to 1000000");
        }
        if let Some(base) = self.base_path.as_ref().filter(|base| !is_base_path(base)) {
            return fail("base_path", base, "a path such as /v1, with a leading and without a trailing slash");
        }
        if let Some(template) = self.dashboard.trace_url.as_ref().filter(|url| !dashboard::is_trace_url(url)) {
            return fail("dashboard_trace_url", template, dashboard::TRACE_URL);
        }
        if let Some(header) = self.captured_headers.iter().find(|h| axum::http::HeaderName::try_from(*h).is_err()) {
            return fail("captured_headers", header, "a header name");
        }
        Ok(())
    }
}

/// Whether every segment is non-empty and free of delimiters, so that a longer path stays on the same host.
pub(crate) fn is_base_path(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or_default().split('/');
    let is_valid = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\\"<>".contains(&b))
    };
    segments.into_iter().all(is_valid)
}

#[cfg(test)]
mod tests;
