//! The vocabulary of jobs, shared by all crates. Must not know how jobs are decided, stored or served.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;
pub use crate::trace::{InvalidTraceParent, TraceContext, TraceParent};

/// The id of a job: a UUID, of version 7 unless its submitter chose it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new, unique id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The name of a job type: 1 to 100 characters of `A-Z a-z 0-9 . _ -`, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct JobName(Arc<str>);

impl JobName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let fits =
            (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        fits.then(|| Self(name.into())).ok_or_else(|| InvalidName(name.chars().take(120).collect()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<Cow<'_, str>> for JobName {
    type Error = InvalidName;

    fn try_from(name: Cow<'_, str>) -> Result<Self, InvalidName> {
        Self::new(&name)
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Text that is not a job name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid job name {0:?}: expected 1–100 characters from A-Z a-z 0-9 . _ -")]
pub struct InvalidName(String);

/// The state of a job. The last three are terminal: status, result, error and times never change after them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobStatus {
    /// Runnable, waiting for a worker.
    Queued,
    /// Runnable later: delayed by its submitter, or waiting for a retry.
    Scheduled,
    /// An attempt runs under a lease.
    InProgress,
    /// A handler returned a result.
    Completed,
    /// The last attempt failed, or the job lost more leases than it may.
    Failed,
    /// Canceled by a caller or by its handler.
    Canceled,
}

impl JobStatus {
    /// Every state, in the order of the enum.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Scheduled, Self::InProgress, Self::Completed, Self::Failed, Self::Canceled];

    /// Whether the state is final.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// The state as JSON documents write it, `InProgress` for example.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Scheduled => "Scheduled",
            Self::InProgress => "InProgress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The priority of a job: 0 (last) to 9 (first). Defaults to 4.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// Runs after all other priorities.
    pub const LOWEST: Self = Self(0);
    /// Runs before all other priorities.
    pub const HIGHEST: Self = Self(9);

    /// A priority; numbers above 9 count as 9.
    pub const fn new(number: u8) -> Self {
        Self(if number > 9 { 9 } else { number })
    }

    /// The number, 0 to 9.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

impl TryFrom<u8> for Priority {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if number > 9 { Err("invalid priority: expected 0 to 9") } else { Ok(Self(number)) }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// A SHA-256 of a value that stores only compare: a request's fingerprint, an owner.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap_or_default();
        is_hex.then(|| Self(std::array::from_fn(byte)))
    }
}

/// As 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// A stored error: a problem object (RFC 9457) without the fields that depend on its reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// Identifies the problem to programs and metrics: `UPPER_SNAKE_CASE`, stable.
    pub code: Cow<'static, str>,
    /// The problem in a few words, the same for every occurrence.
    pub title: Cow<'static, str>,
    /// The HTTP status that a synchronous endpoint would have returned.
    pub status: u16,
    /// A description of this occurrence that callers may see.
    pub detail: Option<String>,
    /// Whether a retry may succeed.
    pub retryable: bool,
    /// The cause, outermost first: the messages of an error and of its sources, or the message and location of a panic.
    /// At most [`ERROR_SOURCES`](crate::limits::ERROR_SOURCES) entries with
    /// [`ERROR_SOURCE_BYTES`](crate::limits::ERROR_SOURCE_BYTES) bytes together. For operators: the text may contain
    /// secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// The progress that an attempt reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Units done.
    pub completed: u64,
    /// Units in total, where known.
    pub total: Option<u64>,
    /// 0 to 100, where known; never falls within an attempt.
    pub percent: Option<f64>,
    /// A description of the present step, at most 1 KiB.
    pub message: Option<String>,
    /// When it was reported, by the store's clock.
    pub updated_at: Timestamp,
}

/// How an attempt ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Completed,
    /// It failed, and the job waits for a retry.
    Retried,
    /// It failed, and so did the job.
    Failed,
    /// It was canceled.
    Canceled,
    /// Its worker shut down and released the job.
    Released,
    /// Its lease expired: the worker died or was cut off.
    Lost,
}

impl AttemptOutcome {
    /// Every outcome, in the order of the enum.
    pub const ALL: [Self; 6] =
        [Self::Completed, Self::Retried, Self::Failed, Self::Canceled, Self::Released, Self::Lost];
}

/// The id of a worker. Each start of a process has a new one.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One start of a job's handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// 1 for the first.
    pub attempt: u32,
    /// The worker that claimed the job; none if it is not known.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// By the store's clock.
    pub started_at: Timestamp,
    /// By the store's clock; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// None while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// The error; none if it completed or was released.
    pub error: Option<ErrorRecord>,
}

/// A job as readers see it. The payload is not part of it: only a claim returns payloads.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its type.
    pub name: JobName,
    /// Its state.
    pub status: JobStatus,
    /// Starts so far; never falls.
    pub attempt: u32,
    /// Failures of the handler (error, panic, timeout) that were retried.
    pub retry_count: u32,
    /// Leases lost to a dead or cut-off worker.
    pub loss_count: u32,
    /// Attempts released by a worker that shut down.
    pub release_count: u32,
    /// Retries allowed.
    pub max_retries: u32,
    /// Decides which of the runnable jobs starts first.
    pub priority: Priority,
    /// Grows with every change that a client can see, except of `ahead`.
    pub version: u64,
    /// When the store accepted it.
    pub created_at: Timestamp,
    /// When it is or was due; none for a job that was never Scheduled.
    pub scheduled_at: Option<Timestamp>,
    /// The latest start.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub completed_at: Option<Timestamp>,
    /// When a client-visible field last changed.
    pub last_updated_at: Timestamp,
    /// When an ended job expires.
    pub expires_at: Option<Timestamp>,
    /// When a caller asked to cancel it while it ran.
    pub cancel_requested_at: Option<Timestamp>,
    /// The latest attempt's progress.
    pub progress: Option<Progress>,
    /// The handler's JSON, if the job completed.
    pub result: Option<Bytes>,
    /// The error that ended the job, or else the last attempt's error.
    pub error: Option<ErrorRecord>,
    /// The last [`ATTEMPTS_KEPT`](crate::limits::ATTEMPTS_KEPT) attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Jobs of its type that start before it, while it is Queued;
    /// exact up to [`AHEAD_COUNTED`](crate::limits::AHEAD_COUNTED).
    pub ahead: Option<u64>,
    /// The job that this one retries.
    pub retry_of: Option<JobId>,
    /// The job that retries this one.
    pub retried_by: Option<JobId>,
    /// The trace context of its submission.
    pub trace: Option<TraceContext>,
    /// Its owner, hashed; none if no owner rule is set.
    pub owner: Option<Digest>,
    /// The owner's name as text; none unless the application keeps names.
    pub owner_label: Option<String>,
}

/// A line that a handler logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Its number within the job, from 1, set by the store.
    #[serde(default)]
    pub line: u64,
    /// The attempt that wrote it, set by the store.
    #[serde(default)]
    pub attempt: u32,
    /// When it was written.
    pub timestamp: Timestamp,
    /// `ERROR` to `TRACE`.
    pub level: Cow<'static, str>,
    /// The part of the program that wrote it, usually a module path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The message.
    pub message: String,
    /// Further fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, serde_json::Value>,
}

impl LogLine {
    /// Its size, as counted against [`LOG_BYTES_PER_JOB`](crate::limits::LOG_BYTES_PER_JOB): the bytes of target,
    /// message, field names, and field values as JSON.
    pub fn bytes(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(k, v)| k.len() + v.to_string().len()).sum();
        self.target.as_ref().map_or(0, String::len) + self.message.len() + fields
    }
}

/// The rules of a job, set by its type when it is inserted and never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct JobTerms {
    /// Decides which of the runnable jobs starts first.
    pub priority: Priority,
    /// Retries allowed.
    pub max_retries: u32,
    /// Lost leases allowed; one more fails the job.
    pub max_losses: u32,
    /// How long it stays readable after its end, and for how long after that it answers `Gone`.
    pub retention: Duration,
}

impl Default for JobTerms {
    /// Default priority, 3 retries, 5 losses, a retention of one day.
    fn default() -> Self {
        let retention = Duration::from_secs(24 * 60 * 60);
        Self { priority: Priority::default(), max_retries: 3, max_losses: 5, retention }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_validated() {
        for good in ["a", "ProcessData", "a.b_c-9", &"x".repeat(100)] {
            assert_eq!(JobName::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a{b}", "a:b", "ü", &"x".repeat(101)] {
            assert!(JobName::new(bad).is_err(), "{bad:?}");
        }
    }
}
