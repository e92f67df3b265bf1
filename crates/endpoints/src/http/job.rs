//! Responses with a job, and their headers.

use std::time::{Duration, SystemTime};

use async_endpoints_core::{JobStatus, JobView};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use uuid::fmt::Hyphenated;

use super::document::JobDocument;

const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const JOB_ID: HeaderName = HeaderName::from_static("x-async-job-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Maximum number of headers of a response with a job.
const HEADERS: usize = 10;

/// A response with a job, its `ETag` and, until the job has ended, `Retry-After`.
pub(super) fn answer(document: &JobDocument<'_>, status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(document.json()));
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set_version(&mut response, document.job, document.expected_wait);
    response
}

/// `304` for a client that has this version.
pub(super) fn not_modified(job: &JobView, expected_wait: Option<Duration>) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    set_version(&mut response, job, expected_wait);
    response
}

/// Sets `ETag` and `Retry-After`.
fn set_version(response: &mut Response, job: &JobView, expected_wait: Option<Duration>) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(job.version));
    if let Some(seconds) = retry_after(job, expected_wait) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
}

/// The response to an accepted submission or a retry: the job, its location and `Retry-After`.
pub(super) fn accepted(document: &JobDocument<'_>, status: StatusCode, replayed: bool) -> Response {
    let mut response = answer(document, status);
    let headers = response.headers_mut();
    if status == StatusCode::ACCEPTED && document.job.status.is_terminal() {
        // A replayed job has ended already.
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let location = Bytes::from(document.location());
    // The location ends with the id.
    let id = location.slice(location.len() - Hyphenated::LENGTH..);
    // A base path may have characters that a header value cannot: then only the body has the location.
    if let Ok(location) = HeaderValue::from_maybe_shared(location) {
        headers.insert(header::LOCATION, location.clone());
        headers.insert(OPERATION_LOCATION, location);
    }
    if let Ok(id) = HeaderValue::from_maybe_shared(id) {
        headers.insert(JOB_ID, id);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Sets `Vary: Prefer`, and `Preference-Applied` if a wait was honored.
pub(super) fn set_preference(response: &mut Response, wait: Option<u64>) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Prefer"));
    if let Some(value) = wait.and_then(|seconds| HeaderValue::try_from(format!("wait={seconds}")).ok()) {
        headers.insert(PREFERENCE_APPLIED, value);
    }
}

/// The entity tag of a version.
pub(super) fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| unreachable!("digits and quotes are visible"))
}

/// Seconds until the next poll is useful, 1 to 60; `None` for an ended job. `expected_wait` is that of a queued job.
pub(super) fn retry_after(job: &JobView, expected_wait: Option<Duration>) -> Option<u64> {
    let wait = match job.status {
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => return None,
        JobStatus::Queued => expected_wait.unwrap_or_default(),
        JobStatus::InProgress => Duration::ZERO,
        JobStatus::Scheduled => job.scheduled_at.unwrap_or_default().since(SystemTime::now().into()),
    };
    Some(wait.as_secs().clamp(1, 60))
}
