//! Jobs, errors and names for tests, made in one line. Must not know stores.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{
    JobId, JobName, Priority, Timestamp,
    job::{Digest, ErrorRecord, JobTerms, LogLine},
    store::{IdempotencyKey, NewJob, Outcome},
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

/// A digest unlike that of any other number.
#[must_use]
pub const fn digest(number: u8) -> Digest {
    Digest([number; 32])
}

/// An error that could be any.
#[must_use]
pub fn error(code: &'static str) -> ErrorRecord {
    let detail = Some(format!("{code}: ünïcode, \"quotes\" and a\nnew line"));
    ErrorRecord { code: code.into(), title: "A test".into(), status: 503, detail, retryable: true }
}

/// A result.
#[must_use]
pub fn completed(json: &'static str) -> Outcome {
    Outcome::Completed { result: Bytes::from_static(json.as_bytes()) }
}

/// A line as a handler logs it.
#[must_use]
pub fn line(message: impl Into<String>) -> LogLine {
    let fields = BTreeMap::from([("row".to_owned(), serde_json::json!(7))]);
    let timestamp = Timestamp::from_micros(1_772_366_400_000_001);
    LogLine { line: 0, attempt: 0, timestamp, level: "INFO".into(), message: message.into(), fields }
}

/// A runnable job of that type: an id that may come again, no key, no owner, no limit, `retention` as told, 3 retries, 5 losses.
#[must_use]
pub fn job(of: &str, retention: Duration) -> NewJob {
    NewJob {
        id: JobId::random(),
        id_chosen: true,
        name: name(of),
        payload: Bytes::from_static(br#"{"a":1}"#),
        terms: JobTerms { priority: Priority::default(), max_retries: 3, max_losses: 5, retention },
        delay: Duration::ZERO,
        queue_limit: None,
        key: None,
        fingerprint: digest(1),
        owner: None,
        trace: None,
    }
}
