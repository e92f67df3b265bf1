//! A job as the JSON that clients read.
//!
//! Field by field instead of `derive(Serialize)`: a derived struct takes twice as long, 4 % of a whole submission, and is
//! no shorter.

use std::time::Duration;

use async_endpoints_core::{
    JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, TraceContext, WorkerId},
};
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;
use uuid::fmt::Hyphenated;

use super::problem::ProblemBody;
use crate::{fleet::Waiting, telemetry::events};

/// Capacity of the buffer: a job without progress, result and errors fits.
const BYTES: usize = 1 << 10;

/// A job in the form that clients read. Serialize it to get the JSON of the library's responses.
#[derive(Debug)]
pub struct JobDocument<'a> {
    pub(super) job: &'a JobView,
    pub(super) waiting: Option<Waiting>,
    /// How long a queued job is expected to wait.
    pub(super) expected_wait: Option<Duration>,
    /// The path of the job list, with the prefix that the routes are mounted under.
    pub(super) jobs: &'a str,
    /// Whether the document has the owner and the sources of errors. Two callers never share a document.
    pub(super) for_operator: bool,
}

impl JobDocument<'_> {
    /// The job.
    pub fn view(&self) -> &JobView {
        self.job
    }

    /// The path of the job: by default `/jobs/{id}`, after the prefix that the routes are mounted under.
    pub fn location(&self) -> String {
        let mut id = [0; Hyphenated::LENGTH];
        [self.jobs, "/", self.job.id.0.hyphenated().encode_lower(&mut id)].concat()
    }

    pub(super) fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        self.write(&mut out);
        out
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let job = self.job;
        let mut id = [0; Hyphenated::LENGTH];
        let id = &*job.id.0.hyphenated().encode_lower(&mut id);
        let (trace_id, sources) = (job.trace.as_ref().map(TraceContext::trace_id), self.for_operator);
        let trace_id = trace_id.as_deref();
        let mut object = ObjectWriter::begin(out);
        object.text("id", &[id]);
        object.text("name", &[job.name.as_str()]);
        object.text("status", &[job.status.as_str()]);
        object.field("attempt", &job.attempt);
        object.field("retryCount", &job.retry_count);
        object.field("lossCount", &job.loss_count);
        object.field("maxRetries", &job.max_retries);
        object.field("priority", &job.priority);
        object.field("version", &job.version);
        object.field("createdAt", &job.created_at);
        object.field("scheduledAt", &job.scheduled_at);
        object.field("startedAt", &job.started_at);
        object.field("completedAt", &job.completed_at);
        object.field("lastUpdatedAt", &job.last_updated_at);
        object.field("expiresAt", &job.expires_at);
        object.field("cancelRequestedAt", &job.cancel_requested_at);
        object.field("progress", &job.progress);
        object.field("result", &self.result());
        object.field(
            "error",
            &job.error.as_ref().map(|error| ProblemBody::of_job(error, job.attempt, trace_id, sources)),
        );
        let attempts = job.attempts.iter().map(|record| Attempt::of(record, trace_id, sources));
        object.field("attempts", &attempts.collect::<Vec<_>>());
        object.field("waiting", &self.waiting);
        object.field("retryOf", &job.retry_of);
        object.field("retriedBy", &job.retried_by);
        object.field("traceId", &trace_id);
        if let Some(owner) = job.owner.filter(|_| self.for_operator) {
            object.text("owner", &[&owner.to_string()]);
            object.field("ownerLabel", &job.owner_label);
        }
        self.links(object.begin_field("links"), id);
        object.end();
    }

    fn links(&self, out: &mut Vec<u8>, id: &str) {
        // A prefix may contain characters that JSON escapes.
        let jobs = serde_json::to_string(self.jobs).unwrap_or_default();
        let jobs = jobs.trim_matches('"');
        let mut links = ObjectWriter::begin(out);
        for (name, part) in
            [("self", ""), ("events", "/events"), ("cancel", "/cancel"), ("logs", "/logs"), ("result", "/result")]
        {
            links.text(name, &[jobs, "/", id, part]);
        }
        links.end();
    }

    /// The result; `None` if it is not JSON, which no worker stores.
    fn result(&self) -> Option<&RawValue> {
        self.job.result.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok())
    }
}

impl Serialize for JobDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = String::from_utf8(self.json()).map_err(S::Error::custom)?;
        RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt<'a> {
    attempt: u32,
    worker: Option<WorkerId>,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    outcome: Option<AttemptOutcome>,
    error: Option<ProblemBody<'a>>,
}

impl<'a> Attempt<'a> {
    fn of(record: &'a AttemptRecord, trace_id: Option<&'a str>, sources: bool) -> Self {
        let error = record.error.as_ref();
        Self {
            attempt: record.attempt,
            worker: record.worker,
            started_at: record.started_at,
            ended_at: record.ended_at,
            outcome: record.outcome,
            error: error.map(|error| ProblemBody::of_job(error, record.attempt, trace_id, sources)),
        }
    }
}

/// Writes a JSON object. Field names are not escaped.
struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> ObjectWriter<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    fn begin_field(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.push(std::mem::replace(&mut self.separator, b','));
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn field(&mut self, name: &'static str, value: &impl Serialize) {
        let out = self.begin_field(name);
        let before = out.len();
        if let Err(error) = serde_json::to_writer(&mut *out, value) {
            events::internal("a part of a job cannot be written as JSON", &error);
            out.truncate(before);
            out.extend_from_slice(b"null");
        }
    }

    /// Writes a string from pieces that need no escaping.
    fn text(&mut self, name: &'static str, pieces: &[&str]) {
        let out = self.begin_field(name);
        out.push(b'"');
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        out.push(b'"');
    }

    fn end(self) {
        self.out.push(b'}');
    }
}
