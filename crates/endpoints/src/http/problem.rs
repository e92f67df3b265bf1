//! Everything that can be answered instead of a job: one problem object (RFC 9457) for each, with a stable code.

use async_endpoints_core::{
    StoreError,
    job::{ErrorRecord, TraceContext},
};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};

use crate::{error::cut, submit::SubmitError, telemetry::events};

/// Bytes of a detail that are told.
const DETAIL_BYTES: usize = 4 << 10;
/// Seconds after which a refused client may come back.
const COME_BACK: u64 = 1;

/// A refusal as it is told: a problem object (RFC 9457), `application/problem+json`. Validators may answer with one;
/// serialized, it is its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    trace_id: Option<String>,
}

/// The members of every problem object that we send; a failed job's `error` has two more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    trace_id: Option<&'a str>,
}

impl<'a> ProblemBody<'a> {
    /// A job's error, with what its store does not keep of it.
    pub(super) fn of_job(error: &'a ErrorRecord, attempt: u32, trace: Option<&'a TraceContext>) -> Self {
        Self {
            kind: kind(&error.code),
            title: &error.title,
            status: error.status,
            detail: error.detail.as_deref(),
            code: &error.code,
            attempt: Some(attempt),
            retryable: Some(error.retryable),
            trace_id: trace.and_then(TraceContext::trace_id),
        }
    }
}

/// A problem's type: a name, not an address.
fn kind(code: &str) -> String {
    format!("urn:async-endpoints:problem:{code}")
}

impl Problem {
    /// A problem of that kind: its HTTP status, its stable code in `UPPER_SNAKE_CASE`, and a title that is the same for
    /// every occurrence.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, detail: None, headers: Vec::new(), trace_id: None }
    }

    /// Says what is wrong this time, in words that a caller may see; 4 KiB of them are kept.
    #[must_use]
    pub fn with_detail(mut self, text: impl Into<String>) -> Self {
        // What was sent may be in it, as long as it is.
        self.detail = Some(cut(text.into(), DETAIL_BYTES));
        self
    }

    /// Sends a header along, in place of one of that name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(own, _)| *own != name);
        self.headers.push((name, value));
        self
    }

    /// Says when it is worth trying again, in seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.into())
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its title.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// What is wrong this time.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The trace that the refused request belongs to.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    fn of(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(status, code, title).with_detail(detail)
    }

    fn unavailable(code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).with_retry_after(COME_BACK)
    }

    /// What the application's own code did to the request.
    pub(super) fn internal() -> Self {
        let detail = "The request could not be handled. The service's log says more.";
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "Internal error", detail)
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "This needs the header Authorization: Bearer <token>.";
        let problem = Self::of(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "A token is needed", detail);
        problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(super) fn forbidden() -> Self {
        let detail = "This is for the service's operators; the access policy does not let this request in.";
        Self::of(StatusCode::FORBIDDEN, "FORBIDDEN", "Not for this caller", detail)
    }

    pub(super) fn cross_site() -> Self {
        let detail = "Sec-Fetch-Site says that another site made this request.";
        Self::of(StatusCode::FORBIDDEN, "CROSS_SITE_REQUEST", "Another site's request", detail)
    }

    pub(super) fn too_many_streams() -> Self {
        let detail = "As many clients follow jobs here as may. GET /jobs/{id} still answers.";
        Self::unavailable("TOO_MANY_STREAMS", "Too many streams", detail)
    }

    pub(super) fn body_timeout() -> Self {
        let detail = "The body did not come in time.";
        Self::of(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", "The body is too slow", detail)
    }

    pub(super) fn not_acceptable(types: &str) -> Self {
        let detail = format!("There is {types}; Accept allows none of them.");
        Self::of(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", "No acceptable form", detail)
    }

    pub(super) fn not_retryable(status: &str) -> Self {
        let detail = format!("The job is {status}; only one that failed or was canceled can be run again.");
        Self::of(StatusCode::CONFLICT, "JOB_NOT_RETRYABLE", "The job cannot be run again", detail)
    }

    /// The trace that the refused request belongs to.
    pub(super) fn traced(mut self, trace: Option<&TraceContext>) -> Self {
        self.trace_id = trace.and_then(TraceContext::trace_id).map(str::to_owned);
        self
    }

    pub(super) fn invalid_json(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "INVALID_JSON", "The body is not JSON", detail)
    }

    pub(super) fn unreadable_body(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "INVALID_BODY", "The body cannot be read", detail)
    }

    pub(super) fn unsupported_media_type(found: Option<&HeaderValue>) -> Self {
        let found = found.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"));
        let detail = format!("A body needs the content type application/json; it has {found}.");
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON", detail)
    }

    pub(super) fn unsupported_encoding(found: &HeaderValue) -> Self {
        let detail = format!("A body is taken as it is; it has the content encoding {found:?}.");
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON", detail)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("The body may have {limit} bytes.");
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", "The body is too large", detail)
    }

    pub(super) fn invalid_request(detail: impl Into<String>) -> Self {
        let title = "The body does not fit the job type";
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", title, detail)
    }

    pub(super) fn invalid_path(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "INVALID_PATH", "The path cannot be read", detail)
    }

    pub(super) fn invalid_query(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "INVALID_QUERY", "The query cannot be read", detail)
    }

    pub(super) fn invalid_key() -> Self {
        let detail = "Idempotency-Key takes 1 to 255 visible ASCII characters, quoted or bare, once.";
        Self::of(StatusCode::BAD_REQUEST, "INVALID_IDEMPOTENCY_KEY", "The idempotency key is malformed", detail)
    }

    pub(super) fn invalid_id() -> Self {
        let detail = "X-Async-Request-Id takes a UUID, once.";
        Self::of(StatusCode::BAD_REQUEST, "INVALID_REQUEST_ID", "The request id is malformed", detail)
    }

    pub(super) fn not_found() -> Self {
        let detail = "There is no job of this id.";
        Self::of(StatusCode::NOT_FOUND, "JOB_NOT_FOUND", "No such job", detail)
    }

    pub(super) fn expired() -> Self {
        let detail = "The job ended and was kept for its retention time, which is over.";
        Self::of(StatusCode::GONE, "JOB_EXPIRED", "The job has expired", detail)
    }

    pub(super) fn ended(status: &str) -> Self {
        let detail = format!("The job is {status} and can no longer be canceled.");
        Self::of(StatusCode::CONFLICT, "JOB_ENDED", "The job has ended", detail)
    }

    pub(super) fn not_ended(status: &str, retry_after: Option<u64>) -> Self {
        let detail = format!("The job is {status}; it has no result yet.");
        let problem = Self::of(StatusCode::CONFLICT, "JOB_NOT_ENDED", "The job has not ended", detail);
        retry_after.into_iter().fold(problem, Self::with_retry_after)
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        let detail = format!("{method} is not supported here; see the Allow header.");
        Self::of(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "Method not allowed", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // What the store said is the operators' to know.
        events::store_failed("request", &error);
        let detail =
            "The job store does not answer. Nothing is half done; with an Idempotency-Key, repeating it is safe.";
        Self::unavailable("STORE_UNAVAILABLE", "The job store is unavailable", detail)
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => {
                let detail = "As many jobs of this type wait as may. Nothing was stored.";
                Self::unavailable("QUEUE_FULL", "The queue is full", detail)
            }
            SubmitError::ShuttingDown => {
                let detail = "This process stops. Nothing was stored.";
                Self::unavailable("SHUTTING_DOWN", "Shutting down", detail)
            }
            SubmitError::Conflict => {
                let detail = "The idempotency key or the request id was used for another request.";
                let title = "The key belongs to another request";
                Self::of(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_CONFLICT", title, detail)
            }
            SubmitError::Expired => Self::expired(),
            SubmitError::Invalid(detail) => Self::invalid_request(detail),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = ProblemBody {
            kind: kind(self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            code: self.code,
            attempt: None,
            retryable: None,
            trace_id: self.trace_id.as_deref(),
        };
        body.serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json("application/problem+json", &self);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A value as a body.
pub(super) fn json(content_type: &'static str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(header::CONTENT_TYPE, content_type)], Body::from(bytes)).into_response(),
        Err(error) => {
            events::internal("an answer cannot be written as JSON", &error);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
