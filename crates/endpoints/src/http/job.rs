//! A job as clients see it, and the headers that go with it.

use std::{fmt, time::SystemTime};

use async_endpoints_core::{
    JobId, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, Progress, TraceContext},
};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::problem::{ProblemBody, json};
use crate::fleet::Waiting;

const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");
const JOB_ID: HeaderName = HeaderName::from_static("x-async-job-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// As many headers as an answer with a job has at most.
const HEADERS: usize = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobBody<'a> {
    id: JobId,
    name: &'a str,
    status: JobStatus,
    attempt: u32,
    retry_count: u32,
    loss_count: u32,
    max_retries: u32,
    priority: u8,
    version: u64,
    created_at: Timestamp,
    scheduled_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    last_updated_at: Timestamp,
    expires_at: Option<Timestamp>,
    cancel_requested_at: Option<Timestamp>,
    progress: Option<&'a Progress>,
    result: Option<&'a RawValue>,
    error: Option<ProblemBody<'a>>,
    attempts: Vec<AttemptBody<'a>>,
    waiting: Option<Waiting>,
    retry_of: Option<JobId>,
    retried_by: Option<JobId>,
    trace_id: Option<&'a str>,
    links: Links<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptBody<'a> {
    attempt: u32,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    outcome: Option<AttemptOutcome>,
    error: Option<ProblemBody<'a>>,
}

#[derive(Serialize)]
struct Links<'a> {
    #[serde(rename = "self")]
    job: Link<'a>,
    events: Link<'a>,
    cancel: Link<'a>,
    logs: Link<'a>,
    result: Link<'a>,
}

/// Where a job is found, and what belongs to it.
#[derive(Copy, Clone)]
struct Link<'a> {
    base: &'a str,
    id: JobId,
    part: &'static str,
}

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, id, part } = self;
        write!(f, "{base}/jobs/{id}{part}")
    }
}

impl Serialize for Link<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A job as clients read it: serialize it to get the JSON of every answer with a job in it.
#[derive(Debug)]
pub struct JobDocument<'a> {
    pub(super) job: &'a JobView,
    pub(super) waiting: Option<Waiting>,
    pub(super) base: &'a str,
}

impl JobDocument<'_> {
    /// The job itself.
    pub fn view(&self) -> &JobView {
        self.job
    }

    /// Where it is found, `/jobs/{id}` with the prefix that the routes are mounted under.
    pub fn location(&self) -> String {
        Link { base: self.base, id: self.job.id, part: "" }.to_string()
    }
}

impl Serialize for JobDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        body(self).serialize(serializer)
    }
}

/// A job as an answer, with its `ETag` and, while it is not terminal, `Retry-After`.
pub(super) fn answer(document: &JobDocument<'_>, status: StatusCode) -> Response {
    let mut response = json("application/json", document);
    *response.status_mut() = status;
    response.headers_mut().reserve(HEADERS);
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

fn body<'a>(document: &JobDocument<'a>) -> JobBody<'a> {
    let job = document.job;
    let trace = job.trace.as_ref();
    let link = |part| Link { base: document.base, id: job.id, part };
    JobBody {
        id: job.id,
        name: job.name.as_str(),
        status: job.status,
        attempt: job.attempt,
        retry_count: job.retry_count,
        loss_count: job.loss_count,
        max_retries: job.max_retries,
        priority: job.priority.get(),
        version: job.version,
        created_at: job.created_at,
        scheduled_at: job.scheduled_at,
        started_at: job.started_at,
        completed_at: job.completed_at,
        last_updated_at: job.last_updated_at,
        expires_at: job.expires_at,
        cancel_requested_at: job.cancel_requested_at,
        progress: job.progress.as_ref(),
        // Written by a worker of ours as JSON; anything else is not passed on.
        result: job.result.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok()),
        error: job.error.as_ref().map(|error| ProblemBody::of_job(error, job.attempt, trace)),
        attempts: job.attempts.iter().map(|record| attempt(record, trace)).collect(),
        waiting: document.waiting,
        retry_of: job.retry_of,
        retried_by: job.retried_by,
        trace_id: trace.and_then(TraceContext::trace_id),
        links: Links {
            job: link(""),
            events: link("/events"),
            cancel: link("/cancel"),
            logs: link("/logs"),
            result: link("/result"),
        },
    }
}

fn attempt<'a>(record: &'a AttemptRecord, trace: Option<&'a TraceContext>) -> AttemptBody<'a> {
    AttemptBody {
        attempt: record.attempt,
        started_at: record.started_at,
        ended_at: record.ended_at,
        outcome: record.outcome,
        error: record.error.as_ref().map(|error| ProblemBody::of_job(error, record.attempt, trace)),
    }
}
