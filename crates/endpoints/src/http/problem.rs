//! Problem objects (RFC 9457): the body of every error response.

use std::borrow::Cow;

use async_endpoints_core::{StoreError, job::ErrorRecord, lifecycle::Failure};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::codes::{self, ProblemKind};
use crate::{
    DomainError,
    error::cut,
    new_job::SubmitError,
    telemetry::{current_trace_id, events},
};

/// Maximum bytes of a detail.
const DETAIL_BYTES: usize = 4 << 10;
/// `Retry-After` of `503` responses, in seconds.
const RETRY_AFTER: u64 = 1;

/// The characters that the fragment of a URI must not have (RFC 3986, 3.5).
const NOT_IN_FRAGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The members that every problem has. They cannot be replaced.
const STANDARD_MEMBERS: [&str; 6] = ["type", "title", "status", "detail", "code", "traceId"];

/// An error response: a problem object (RFC 9457), sent as `application/problem+json`. Validators may return one;
/// `Serialize` writes its JSON. A [`DomainError`] becomes one with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    status: StatusCode,
    code: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<String>,
    members: Map<String, Value>,
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
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        let (code, title) = (code.into(), title.into());
        let (members, headers) = (Map::new(), Vec::new());
        Self(Box::new(Fields { status, code, title, detail: None, members, headers, trace_id: None }))
    }

    /// Describes this occurrence to the caller. At most 4 KiB are kept.
    #[must_use]
    pub fn with_detail(mut self, text: impl Into<String>) -> Self {
        self.0.detail = Some(cut(text.into(), DETAIL_BYTES));
        self
    }

    /// Sets an extension member, replacing an earlier value. `type`, `title`, `status`, `detail`, `code` and `traceId` keep
    /// their values.
    ///
    /// ```
    /// # use async_endpoints::{Problem, axum::http::StatusCode};
    /// let problem = Problem::new(StatusCode::CONFLICT, "SOLD_OUT", "Sold out").with_member("left", 0);
    /// assert_eq!(problem.member("left"), Some(&0.into()));
    /// ```
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !STANDARD_MEMBERS.contains(&name) {
            self.0.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds an invalid field to the member `errors`: its JSON pointer and what is wrong. Callers get the pointer as the
    /// fragment of a URI, as in RFC 9457: `#/stay/nights`.
    ///
    /// ```
    /// # use async_endpoints::{Problem, axum::http::StatusCode};
    /// let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_STAY", "The stay is invalid")
    ///     .with_error("/nights", "expected 1 to 30")
    ///     .with_error("/guests/0/name", "expected a name");
    /// assert_eq!(problem.member("errors").unwrap()[0]["pointer"], "#/nights");
    /// ```
    #[must_use]
    pub fn with_error(mut self, pointer: &str, detail: impl Into<String>) -> Self {
        let pointer = utf8_percent_encode(pointer, NOT_IN_FRAGMENT);
        let error = json!({ "pointer": format!("#{pointer}"), "detail": detail.into() });
        match self.0.members.get_mut("errors") {
            Some(Value::Array(errors)) => errors.push(error),
            _ => drop(self.0.members.insert("errors".to_owned(), json!([error]))),
        }
        self
    }

    /// Sets a response header, replacing an earlier value.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.retain(|(own, _)| *own != name);
        self.0.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.into())
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The title.
    pub fn title(&self) -> &str {
        &self.0.title
    }

    /// The description of this occurrence.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// An extension member.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }

    /// The trace of the request.
    pub fn trace_id(&self) -> Option<&str> {
        self.0.trace_id.as_deref()
    }

    /// Sets the trace of the current request.
    pub(super) fn traced(mut self) -> Self {
        self.0.trace_id = current_trace_id();
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

/// The problem has code, status, title and detail of the error's [`job_error`](DomainError::job_error), and `Retry-After` if
/// that is retried after a time of its own. The message of a server error is logged, not sent.
impl<E: DomainError> From<E> for Problem {
    fn from(error: E) -> Self {
        let refusal = error.job_error();
        let status = StatusCode::from_u16(refusal.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            events::internal("the application refused a request", &error);
        }
        let title = refusal.title().to_owned();
        let mut problem = Self::new(status, refusal.code, title);
        problem.0.detail = refusal.detail.map(|detail| cut(detail, DETAIL_BYTES));
        match refusal.failure {
            Failure::RetryAfter(delay) => problem.with_retry_after(delay.as_secs_f64().ceil() as u64),
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
        /// Serde writes flattened structs more slowly, so the errors of jobs are written without.
        #[derive(Serialize)]
        struct WithMembers<'a> {
            #[serde(flatten)]
            body: ProblemBody<'a>,
            #[serde(flatten)]
            members: &'a Map<String, Value>,
        }
        let Fields { status, code, title, detail, members, trace_id, headers: _ } = &*self.0;
        let body = ProblemBody {
            type_uri: type_uri(code),
            title,
            status: status.as_u16(),
            detail: detail.as_deref(),
            code,
            attempt: None,
            retryable: None,
            trace_id: trace_id.as_deref(),
            sources: &[],
        };
        WithMembers { body, members }.serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let problem = if self.trace_id().is_some() { self } else { self.traced() };
        let mut response = json("application/problem+json", &problem);
        *response.status_mut() = problem.status();
        for (name, value) in problem.0.headers {
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
