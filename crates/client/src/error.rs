//! Errors of the client, and failures of jobs.

use std::{fmt, time::Duration};

use async_endpoints_core::{JobId, JobName, JobStatus};
use reqwest::StatusCode;

use crate::problem::Problem;

/// Why a call failed. `request` is the method and the address, without user, password and query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed an invalid value.
    #[error("invalid {what} {value:?}: expected {expected}")]
    Invalid {
        /// What the value was meant to be.
        what: &'static str,
        /// The value.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// The HTTP client cannot be made, for example without TLS.
    #[error("cannot make an HTTP client")]
    HttpClient(#[source] reqwest::Error),
    /// The request of a submission cannot be written as JSON.
    #[error("cannot write the request as JSON: {0}")]
    Request(#[source] serde_json::Error),
    /// The service did not answer: the connection failed, or the time limit passed. A submission may have arrived.
    #[error("{request}: no answer ({requests} requests): {}", root(source))]
    Unreachable {
        /// The request.
        request: String,
        /// Requests sent.
        requests: u32,
        /// The error of the last one.
        source: reqwest::Error,
    },
    /// The service refused the request.
    #[error("{request}: {}", refusal(*status, problem.as_deref(), body))]
    Refused {
        /// The request.
        request: String,
        /// The status of the answer.
        status: StatusCode,
        /// The problem object; `None` if the body is something else, as that of a proxy.
        problem: Option<Box<Problem>>,
        /// The body of the answer, as text.
        body: String,
        /// The `Retry-After` of the answer.
        retry_after: Option<Duration>,
    },
    /// The answer is not one of AsyncEndpoints, or the result does not fit its type.
    #[error("{request}: unexpected answer: {detail}")]
    Unexpected {
        /// The request.
        request: String,
        /// What is unexpected.
        detail: String,
    },
    /// The job failed or was canceled.
    #[error(transparent)]
    Job(Box<JobFailure>),
}

impl Error {
    /// The problem object: that of the job, or that of a refused request.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. } => problem.as_deref(),
            Self::Job(failure) => Some(&failure.problem),
            _ => None,
        }
    }

    /// The code of the problem object.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }
}

impl From<JobFailure> for Error {
    fn from(failure: JobFailure) -> Self {
        Self::Job(Box::new(failure))
    }
}

/// The innermost cause. The outer ones of reqwest say only that a request failed.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Maximum characters of a body in an error message.
const EXCERPT: usize = 200;

fn refusal(status: StatusCode, problem: Option<&Problem>, body: &str) -> String {
    match problem {
        Some(problem) => format!("{} {}: {}", status.as_u16(), problem.code, problem.text()),
        None => format!("{status}: {}", body.trim().chars().take(EXCERPT).collect::<String>()),
    }
}

/// A job that ended without a result.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobFailure {
    /// The job.
    pub id: JobId,
    /// Its type.
    pub name: JobName,
    /// `Failed` or `Canceled`.
    pub status: JobStatus,
    /// Why, with code, detail and the HTTP status that a synchronous endpoint would have sent.
    pub problem: Problem,
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, status, problem } = self;
        write!(f, "job {id} ({name}) is {status}: {}: {}", problem.code, problem.text())
    }
}

impl std::error::Error for JobFailure {}
