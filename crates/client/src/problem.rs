//! Problem objects.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A problem object (RFC 9457): why a request was refused, or why a job failed. Members that a service left out are empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Problem {
    /// A URI that identifies the kind of problem.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The problem in a few words, the same for every occurrence.
    pub title: String,
    /// The HTTP status. A job's error has the status that a synchronous endpoint would have sent.
    pub status: u16,
    /// The description of this occurrence.
    pub detail: Option<String>,
    /// The stable code, in `UPPER_SNAKE_CASE`.
    pub code: String,
    /// The failed attempt, if this is the error of a job.
    pub attempt: Option<u32>,
    /// Whether a retry of the job can succeed, if this is the error of a job.
    pub retryable: Option<bool>,
    /// The trace.
    pub trace_id: Option<String>,
    /// Causes, outermost first. Only operators receive them.
    pub sources: Vec<String>,
    /// Further members, for example those that the application adds.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// The detail, or the title without one.
    pub fn text(&self) -> &str {
        self.detail.as_deref().unwrap_or(&self.title)
    }
}
