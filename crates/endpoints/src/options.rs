//! What an operator can set, with its defaults and its bounds. Must not know what the settings do.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer};

/// The settings of the library. Each has a default that is meant for production.
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
    /// `CONCURRENCY`: attempts at once in this process. Default: four for each core.
    pub concurrency: u32,
    /// `MAX_QUEUE_SIZE`: jobs of one name that may wait. Default: 10 000.
    pub max_queue_size: u64,
    /// `MAX_RETRIES`: how often a failed attempt is tried again. Default: 3.
    pub max_retries: u32,
    /// `RETRY_BASE_SECONDS`: the wait before the first retry; it doubles from there. Default: 2 s.
    #[serde(rename = "retry_base_seconds", deserialize_with = "seconds")]
    pub retry_base: Duration,
    /// `JOB_TIMEOUT_SECONDS`: how long one attempt may take. Default: 30 min.
    #[serde(rename = "job_timeout_seconds", deserialize_with = "seconds")]
    pub job_timeout: Duration,
    /// `LEASE_SECONDS`: how long a worker that fell silent keeps its jobs. Default: 8 s.
    #[serde(rename = "lease_seconds", deserialize_with = "seconds")]
    pub lease: Duration,
    /// `MAX_LOSSES`: workers that may die under a job before it fails. Default: 5.
    pub max_losses: u32,
    /// `RETENTION_SECONDS`: how long an ended job stays readable. Default: a day.
    #[serde(rename = "retention_seconds", deserialize_with = "seconds")]
    pub retention: Duration,
    /// `SHUTDOWN_SECONDS`: how long running attempts may go on after a stop was asked for. Default: 30 s.
    #[serde(rename = "shutdown_seconds", deserialize_with = "seconds")]
    pub shutdown: Duration,
    /// `ALERT_SLOW_SECONDS`: from when on an attempt counts as slow. Default: 30 s.
    #[serde(rename = "alert_slow_seconds", deserialize_with = "seconds")]
    pub slow_after: Duration,
    /// `ALERT_STUCK_SECONDS`: from when on a job that nothing moves though something should counts as stuck.
    /// Default: 10 min.
    #[serde(rename = "alert_stuck_seconds", deserialize_with = "seconds")]
    pub stuck_after: Duration,
    /// `MAX_CONNECTIONS`: connections that [`serve`](crate::AsyncEndpoints::serve) holds at once; beyond, they wait to
    /// be accepted. Default: 16 384, more than the 10 000 clients that may follow jobs in one process.
    pub max_connections: u32,
    /// `HEADER_READ_SECONDS`: how long a client may take to send a request's head, and how long a connection may be
    /// idle between two requests. Default: 30 s.
    #[serde(rename = "header_read_seconds", deserialize_with = "seconds")]
    pub header_read: Duration,
    /// `BASE_PATH`: what the paths of jobs begin with in `Location`, `links` and `/openapi.json`. Default: the prefix
    /// that the answering routes are mounted under. Set it if job routes and submit routes are mounted in different
    /// places, or if a proxy takes a prefix away.
    pub base_path: Option<String>,
    /// Shows callers the message of errors that a handler passed on with `?`, and of panics. Such text can hold
    /// what callers must not see, so it is off by default and no environment variable turns it on.
    pub error_details: bool,
    /// Request headers that a handler may see, in lower case.
    /// Default: `user-agent, x-request-id, x-user-id, x-forwarded-for, content-type`.
    pub captured_headers: Vec<String>,
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
            slow_after: Duration::from_secs(30),
            stuck_after: Duration::from_secs(600),
            max_connections: 16_384,
            header_read: Duration::from_secs(30),
            base_path: None,
            error_details: false,
            captured_headers: headers.map(str::to_owned).to_vec(),
        }
    }
}

/// A setting that cannot be used. Says which, what it is and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}: {expected} is expected")]
pub struct OptionsError {
    /// The variable or field.
    pub name: String,
    /// What is set.
    pub value: String,
    /// What could be set.
    pub expected: String,
}

const YEAR: f64 = 365.0 * 24.0 * 3600.0;

impl Options {
    /// Reads `<prefix>CONCURRENCY` and so on from the environment; what is not set, or set to nothing, keeps its
    /// default.
    pub fn from_env(prefix: &str) -> Result<Self, OptionsError> {
        Self::from_vars(prefix, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// The same from any other source of variables.
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
        vars.seconds("ALERT_SLOW_SECONDS", &mut options.slow_after)?;
        vars.seconds("ALERT_STUCK_SECONDS", &mut options.stuck_after)?;
        vars.number("MAX_CONNECTIONS", &mut options.max_connections)?;
        vars.seconds("HEADER_READ_SECONDS", &mut options.header_read)?;
        vars.read("BASE_PATH", &mut options.base_path, "a path", |text| Some(Some(text.to_owned())))?;
        options.check(|field| format!("{prefix}{}", field.to_uppercase()))?;
        Ok(options)
    }

    /// Whether the settings make sense; `named` says how a field is called where it was set.
    pub(crate) fn check(&self, named: impl Fn(&str) -> String) -> Result<(), OptionsError> {
        let fail = |field: &str, value: &dyn fmt::Display, expected: &str| {
            Err(OptionsError { name: named(field), value: value.to_string(), expected: expected.to_owned() })
        };
        if !(1..=100_000).contains(&self.concurrency) {
            return fail("concurrency", &self.concurrency, "a number from 1 to 100000");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60)).contains(&self.lease) {
            return fail("lease_seconds", &self.lease.as_secs_f64(), "0.1 seconds to a day");
        }
        if self.job_timeout.is_zero() {
            return fail("job_timeout_seconds", &self.job_timeout.as_secs_f64(), "more than 0 seconds");
        }
        if !(1..=1_000_000).contains(&self.max_connections) {
            return fail("max_connections", &self.max_connections, "a number from 1 to 1000000");
        }
        if self.header_read.is_zero() {
            return fail("header_read_seconds", &self.header_read.as_secs_f64(), "more than 0 seconds");
        }
        if let Some(base) = self.base_path.as_ref().filter(|base| !is_base_path(base)) {
            return fail("base_path", base, "a path such as /v1, with a slash at its start and none at its end,");
        }
        if let Some(header) = self.captured_headers.iter().find(|h| axum::http::HeaderName::try_from(*h).is_err()) {
            return fail("captured_headers", header, "the name of a header");
        }
        Ok(())
    }
}

/// A slash and segments, none of them empty: what is put behind it stays on this host.
fn is_base_path(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or_default().split('/');
    let fits = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\\"<>".contains(&b))
    };
    segments.into_iter().all(fits)
}

struct Vars<'a> {
    prefix: &'a str,
    vars: &'a dyn Fn(&str) -> Option<String>,
}

impl Vars<'_> {
    fn number<T: std::str::FromStr>(&self, name: &str, into: &mut T) -> Result<(), OptionsError> {
        self.read(name, into, "a whole number", |text| text.parse().ok())
    }

    fn seconds(&self, name: &str, into: &mut Duration) -> Result<(), OptionsError> {
        self.read(name, into, "a number of seconds, such as 8 or 0.5,", |text| duration(text.parse().ok()?))
    }

    fn read<T>(
        &self,
        name: &str,
        into: &mut T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<(), OptionsError> {
        let name = format!("{}{name}", self.prefix);
        if let Some(value) = (self.vars)(&name).filter(|value| !value.trim().is_empty()) {
            let error = || OptionsError { name, value: value.clone(), expected: expected.to_owned() };
            *into = parse(value.trim()).ok_or_else(error)?;
        }
        Ok(())
    }
}

/// Seconds as a duration, up to a hundred years.
fn duration(seconds: f64) -> Option<Duration> {
    (0.0..=100.0 * YEAR).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    duration(seconds).ok_or_else(|| serde::de::Error::custom(format!("{seconds} is no number of seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Options, OptionsError> {
        let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Options::from_vars("AE_", find)
    }

    #[test]
    fn each_variable_has_its_effect() {
        let default = Options::default();
        assert_eq!(read(&[]), Ok(default.clone()));
        assert_eq!(read(&[("AE_CONCURRENCY", " ")]), Ok(default.clone()));
        let second = Duration::from_millis(1500);
        let cases: [(&str, &str, Options); 14] = [
            ("AE_CONCURRENCY", "7", Options { concurrency: 7, ..default.clone() }),
            ("AE_MAX_QUEUE_SIZE", "7", Options { max_queue_size: 7, ..default.clone() }),
            ("AE_MAX_RETRIES", "0", Options { max_retries: 0, ..default.clone() }),
            ("AE_MAX_LOSSES", "0", Options { max_losses: 0, ..default.clone() }),
            ("AE_RETRY_BASE_SECONDS", "1.5", Options { retry_base: second, ..default.clone() }),
            ("AE_JOB_TIMEOUT_SECONDS", " 1.5 ", Options { job_timeout: second, ..default.clone() }),
            ("AE_LEASE_SECONDS", "1.5", Options { lease: second, ..default.clone() }),
            ("AE_RETENTION_SECONDS", "1.5", Options { retention: second, ..default.clone() }),
            ("AE_SHUTDOWN_SECONDS", "1.5", Options { shutdown: second, ..default.clone() }),
            ("AE_ALERT_SLOW_SECONDS", "1.5", Options { slow_after: second, ..default.clone() }),
            ("AE_ALERT_STUCK_SECONDS", "1.5", Options { stuck_after: second, ..default.clone() }),
            ("AE_MAX_CONNECTIONS", "7", Options { max_connections: 7, ..default.clone() }),
            ("AE_HEADER_READ_SECONDS", "1.5", Options { header_read: second, ..default.clone() }),
            ("AE_BASE_PATH", "/v1", Options { base_path: Some("/v1".to_owned()), ..default.clone() }),
        ];
        for (name, value, expected) in cases {
            assert_ne!(expected, default, "{name}");
            assert_eq!(read(&[(name, value)]), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        let wrong = [
            ("AE_CONCURRENCY", "0"),
            ("AE_CONCURRENCY", "many"),
            ("AE_MAX_RETRIES", "-1"),
            ("AE_LEASE_SECONDS", "0"),
            ("AE_LEASE_SECONDS", "NaN"),
            ("AE_JOB_TIMEOUT_SECONDS", "0"),
            ("AE_RETENTION_SECONDS", "1e300"),
            ("AE_SHUTDOWN_SECONDS", "30s"),
        ];
        for (name, value) in wrong {
            let error = read(&[(name, value)]).expect_err(name);
            assert_eq!(error.name, name);
            assert!(error.to_string().starts_with(&format!("{name} is ")), "{error}");
        }
    }
}
