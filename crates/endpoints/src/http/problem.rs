//! Problem objects (RFC 9457): the body of every error response.

use async_endpoints_core::{StoreError, job::ErrorRecord};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};

use super::codes::{self, ProblemKind};
use crate::{
    error::cut,
    submit::SubmitError,
    telemetry::{current_trace_id, events},
};

/// Maximum bytes of a detail.
const DETAIL_BYTES: usize = 4 << 10;
/// `Retry-After` of `503` responses, in seconds.
const RETRY_AFTER: u64 = 1;

/// An error response: a problem object (RFC 9457), sent as `application/problem+json`. Validators may return one;
/// `Serialize` writes its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    trace_id: Option<String>,
}

/// The members of a problem object. Only a job's error has `attempt`, `retryable` and, for operators, `sources`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProblemBody<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'a str,
    status: u16,
    detail: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sources: &'a [String],
}

impl<'a> ProblemBody<'a> {
    /// A job's error, with the attempt and the trace id of the job. `sources` is set for operators only.
    pub(super) fn of_job(error: &'a ErrorRecord, attempt: u32, trace_id: Option<&'a str>, sources: bool) -> Self {
        Self {
            type_uri: type_uri(&error.code),
            title: &error.title,
            status: error.status,
            detail: error.detail.as_deref(),
            code: &error.code,
            attempt: Some(attempt),
            retryable: Some(error.retryable),
            trace_id,
            sources: if sources { &error.sources } else { &[] },
        }
    }
}

/// A problem's `type`: a URN, which names the problem and cannot be fetched.
pub(super) fn type_uri(code: &str) -> String {
    format!("urn:async-endpoints:problem:{code}")
}

impl Problem {
    /// A problem with its HTTP status, its stable code in `UPPER_SNAKE_CASE`, and the title of all problems with this code.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, detail: None, headers: Vec::new(), trace_id: None }
    }

    /// Describes this occurrence to the caller. At most 4 KiB are kept.
    #[must_use]
    pub fn with_detail(mut self, text: impl Into<String>) -> Self {
        self.detail = Some(cut(text.into(), DETAIL_BYTES));
        self
    }

    /// Sets a response header, replacing an earlier value.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(own, _)| *own != name);
        self.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.into())
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The title.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// The description of this occurrence.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The trace of the request.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    /// Sets the trace of the current request.
    pub(super) fn traced(mut self) -> Self {
        self.trace_id = current_trace_id();
        self
    }
}

impl From<ProblemKind> for Problem {
    fn from(kind: ProblemKind) -> Self {
        kind.with_detail(kind.doc)
    }
}

impl ProblemKind {
    /// A problem of this kind with a detail of its own.
    pub(super) fn with_detail(self, text: impl Into<String>) -> Problem {
        let problem = Problem::new(self.status, self.code, self.title).with_detail(text);
        match self.status {
            StatusCode::UNAUTHORIZED => {
                problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            StatusCode::SERVICE_UNAVAILABLE => problem.with_retry_after(RETRY_AFTER),
            _ => problem,
        }
    }
}

/// The store's own error text is logged, not sent.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        events::store_failed("request", &error);
        match error {
            StoreError::Unreadable(_) => codes::JOB_UNREADABLE.into(),
            _ => codes::STORE_UNAVAILABLE.into(),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => codes::QUEUE_FULL.into(),
            SubmitError::ShuttingDown => codes::SHUTTING_DOWN.into(),
            SubmitError::Conflict => codes::IDEMPOTENCY_CONFLICT.into(),
            SubmitError::Expired => codes::JOB_EXPIRED.into(),
            SubmitError::Invalid(detail) => codes::INVALID_REQUEST.with_detail(detail),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = ProblemBody {
            type_uri: type_uri(self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            code: self.code,
            attempt: None,
            retryable: None,
            trace_id: self.trace_id.as_deref(),
            sources: &[],
        };
        body.serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let problem = if self.trace_id.is_some() { self } else { self.traced() };
        let mut response = json("application/problem+json", &problem);
        *response.status_mut() = problem.status;
        for (name, value) in problem.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A response with this value as JSON.
pub(super) fn json(content_type: &'static str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, content_type)], Body::from(bytes)).into_response(),
        Err(error) => {
            events::internal("a response cannot be written as JSON", &error);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
