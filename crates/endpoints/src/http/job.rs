//! A job as an answer, and the headers that go with it.

use std::time::SystemTime;

use async_endpoints_core::{JobStatus, JobView};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::document::JobDocument;

const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const JOB_ID: HeaderName = HeaderName::from_static("x-async-job-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// As many headers as an answer with a job has at most.
const HEADERS: usize = 10;

/// A job as an answer, with its `ETag` and, while it is not terminal, `Retry-After`.
pub(super) fn answer(document: &JobDocument<'_>, status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(document.json()));
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(&mut response, document.job);
    response
}

/// The answer to who has this version already.
pub(super) fn not_modified(job: &JobView) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    mark(&mut response, job);
    response
}

/// Says which version it is, and when it is worth asking again.
fn mark(response: &mut Response, job: &JobView) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(job.version));
    if let Some(seconds) = retry_after(job) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
}

/// The answer to a submission that was accepted: which job was made, where it is, and when to ask for it.
pub(super) fn accepted(document: &JobDocument<'_>, status: StatusCode, replayed: bool) -> Response {
    let mut response = answer(document, status);
    let headers = response.headers_mut();
    if status == StatusCode::ACCEPTED {
        // Also for a job that ended meanwhile.
        headers.entry(header::RETRY_AFTER).or_insert_with(|| 1.into());
    }
    // A path came as one and an id has no other characters; should they not fit, the body still has them.
    if let Ok(location) = HeaderValue::try_from(document.location()) {
        headers.insert(header::LOCATION, location.clone());
        headers.insert(OPERATION_LOCATION, location);
    }
    headers.extend(HeaderValue::try_from(document.job.id.to_string()).ok().map(|id| (JOB_ID, id)));
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// A job's version as an entity tag.
pub(super) fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| unreachable!("digits and quotes are visible"))
}

/// Seconds until it is worth asking again.
pub(super) fn retry_after(job: &JobView) -> Option<u64> {
    match job.status {
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => None,
        JobStatus::Queued | JobStatus::InProgress => Some(1),
        JobStatus::Scheduled => {
            let wait = job.scheduled_at.unwrap_or_default().since(SystemTime::now().into());
            Some(wait.as_secs().clamp(1, 60))
        }
    }
}
