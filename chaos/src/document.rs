//! Reads fields of job documents.

use serde_json::Value;

/// The attempts of a job; empty if there are none.
pub(crate) fn attempts(job: &Value) -> &[Value] {
    job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text field; empty if it is missing.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
