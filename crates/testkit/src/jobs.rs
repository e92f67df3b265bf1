//! Short constructors of jobs, errors and names for tests. Must not know stores.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{
    JobId, JobName, Timestamp,
    job::{Digest, ErrorRecord, JobTerms, LogLine, TraceParent},
    store::{IdempotencyKey, NewJob, Outcome, WorkerId, WorkerInfo, WorkerSlots},
};
use bytes::Bytes;

/// A job name.
#[must_use]
pub fn name(text: &str) -> JobName {
    JobName::new(text).expect("tests use valid names")
}

/// An idempotency key.
#[must_use]
pub fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("tests use valid keys")
}

/// A digest, different for each number.
#[must_use]
pub const fn digest(number: u8) -> Digest {
    Digest([number; 32])
}

/// The `traceparent` of a span.
#[must_use]
pub const fn traceparent(trace_id: u128, span_id: u64, flags: u8) -> TraceParent {
    TraceParent { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes(), flags }
}

/// An error with this code, a detail and two sources.
#[must_use]
pub fn error(code: &'static str) -> ErrorRecord {
    let detail = Some(format!("{code}: ünïcode, \"quotes\" and a\nnew line"));
    let sources = vec![format!("{code} failed: \u{1}"), "caused by\n\"ünïcode\"".to_owned()];
    ErrorRecord { code: code.into(), title: "A test".into(), status: 503, detail, retryable: true, sources }
}

/// A completed outcome with this result.
#[must_use]
pub fn completed(json: &'static str) -> Outcome {
    Outcome::Completed { result: Bytes::from_static(json.as_bytes()) }
}

/// A log line, as a handler reports it.
#[must_use]
pub fn line(message: impl Into<String>) -> LogLine {
    let fields = BTreeMap::from([("row".to_owned(), serde_json::json!(7))]);
    let timestamp = Timestamp::from_micros(1_772_366_400_000_001);
    LogLine {
        line: 0,
        attempt: 0,
        timestamp,
        level: "INFO".into(),
        target: Some("tests".to_owned()),
        message: message.into(),
        fields,
    }
}

/// A worker without slots and types.
#[must_use]
pub fn worker(id: WorkerId) -> WorkerInfo {
    WorkerInfo {
        id,
        host: "test".to_owned(),
        pid: 1,
        version: "0.0.0".to_owned(),
        started_at: Timestamp::from_micros(1_772_366_400_000_001),
        slots: WorkerSlots::default(),
        types: Vec::new(),
    }
}

/// A runnable job of that type, with a chosen id and the default terms except `retention`. No key, owner or queue limit.
#[must_use]
pub fn job(of: &str, retention: Duration) -> NewJob {
    let terms = JobTerms { retention, ..JobTerms::default() };
    NewJob::new(JobId::random(), name(of), Bytes::from_static(br#"{"a":1}"#), terms, digest(1)).id_chosen(true)
}
