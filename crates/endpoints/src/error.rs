//! How a handler fails, and the codes of everything that goes wrong with a job.
//! Must not know HTTP responses: `http::problem` writes these down.

use std::{any::Any, borrow::Cow, error::Error, fmt, time::Duration};

use async_endpoints_core::{job::ErrorRecord, lifecycle::Failure};

/// Bytes of an error's detail that are kept.
const DETAIL_BYTES: usize = 4 << 10;
/// Bytes of an error's code that are kept.
const CODE_BYTES: usize = 100;

/// Why a handler did not return a result, and whether trying again can help.
///
/// Any error becomes a retryable one with `?`. Its message may hold what callers must not see, so they get
/// only `HANDLER_ERROR`, unless [`Options::error_details`](crate::Options::error_details) is on. What is
/// written into [`permanent`](Self::permanent), [`retryable`](Self::retryable) and
/// [`retry_after`](Self::retry_after) is meant for callers and shown to them.
///
/// ```
/// # use async_endpoints::JobError;
/// fn parse(text: &str) -> Result<u32, JobError> {
///     if text.is_empty() {
///         return Err(JobError::permanent("NOTHING_TO_PARSE", "The text is empty.").status(422));
///     }
///     Ok(text.parse()?) // retryable, though it should not be: see `JobHandler::classify`
/// }
/// assert!(parse("x").is_err());
/// ```
#[derive(Debug)]
pub struct JobError {
    pub(crate) failure: Failure,
    pub(crate) code: Cow<'static, str>,
    pub(crate) status: u16,
    pub(crate) detail: Option<String>,
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

/// Whether trying again can help, as [`JobHandler::classify`](crate::JobHandler::classify) decides it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Classification {
    /// It cannot: the job fails.
    Permanent,
    /// It can, after the retry policy's wait.
    Retryable,
    /// It can, after this wait.
    RetryAfter(Duration),
}

impl JobError {
    /// Trying again cannot help: the job fails with this code, `UPPER_SNAKE_CASE` and at most 100 bytes, and this
    /// detail, of which 4 KiB are kept.
    pub fn permanent(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::Permanent, code.into(), detail.into())
    }

    /// Trying again can help, after the retry policy's wait.
    pub fn retryable(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::Retryable, code.into(), detail.into())
    }

    /// Trying again can help, after this wait.
    pub fn retry_after(wait: Duration, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::RetryAfter(wait), code.into(), detail.into())
    }

    /// The handler stopped because its token told it to, or because it found nothing left to do: the job ends Canceled.
    pub fn canceled() -> Self {
        Self {
            failure: Failure::Canceled,
            code: Builtin::Canceled.code().into(),
            status: 410,
            detail: None,
            source: None,
        }
    }

    /// The HTTP status that a synchronous endpoint would have answered; 500 unless told. Not an error status: 500.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = if (400..600).contains(&status) { status } else { 500 };
        self
    }

    /// Its code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The HTTP status that a synchronous endpoint would have answered.
    pub fn http_status(&self) -> u16 {
        self.status
    }

    /// What callers are told beside the code.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The error that was passed on with `?`.
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// Whether the job is tried again after this, while retries are left.
    pub fn is_retryable(&self) -> bool {
        matches!(self.failure, Failure::Retryable | Failure::RetryAfter(_))
    }

    fn new(failure: Failure, code: Cow<'static, str>, detail: String) -> Self {
        Self { failure, code, status: 500, detail: Some(detail), source: None }
    }

    pub(crate) fn classify(&mut self, classification: Classification) {
        self.failure = match classification {
            Classification::Permanent => Failure::Permanent,
            Classification::Retryable => Failure::Retryable,
            Classification::RetryAfter(wait) => Failure::RetryAfter(wait),
        };
    }

    /// What is stored of it.
    pub(crate) fn record(self, details: bool) -> (Failure, ErrorRecord) {
        let retryable = self.is_retryable();
        let shown = self.detail.or_else(|| self.source.filter(|_| details).map(|source| source.to_string()));
        let record = ErrorRecord {
            title: title(&self.code),
            code: if self.code.len() > CODE_BYTES { cut(self.code.into_owned(), CODE_BYTES).into() } else { self.code },
            status: self.status,
            detail: shown.map(|detail| cut(detail, DETAIL_BYTES)),
            retryable,
        };
        (self.failure, record)
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for JobError {
    fn from(error: E) -> Self {
        let source = Some(error.into());
        Self {
            failure: Failure::Retryable,
            code: Builtin::HandlerError.code().into(),
            status: 500,
            detail: None,
            source,
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match (&self.detail, &self.source) {
            (Some(detail), _) => write!(f, ": {detail}"),
            (None, Some(source)) => write!(f, ": {source}"),
            (None, None) => Ok(()),
        }
    }
}

/// Errors of jobs that the library itself sets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    HandlerError,
    Panic,
    Timeout,
    Canceled,
    WorkerLost,
    ResultTooLarge,
    ResultUnserializable,
    PayloadUnreadable,
}

/// One row of the table of job errors.
pub(crate) struct JobErrorKind {
    pub(crate) code: &'static str,
    pub(crate) status: u16,
    pub(crate) retryable: bool,
    pub(crate) title: &'static str,
}

impl Builtin {
    pub(crate) const ALL: [Self; 8] = [
        Self::HandlerError,
        Self::Panic,
        Self::Timeout,
        Self::Canceled,
        Self::WorkerLost,
        Self::ResultTooLarge,
        Self::ResultUnserializable,
        Self::PayloadUnreadable,
    ];

    /// The codes of failures, all but cancellation.
    pub(crate) const FAILURES: [&'static str; 7] = [
        Self::HandlerError.code(),
        Self::Panic.code(),
        Self::Timeout.code(),
        Self::WorkerLost.code(),
        Self::ResultTooLarge.code(),
        Self::ResultUnserializable.code(),
        Self::PayloadUnreadable.code(),
    ];

    /// The table of job errors. The OpenAPI document and `docs/http.md` are made from it too.
    pub(crate) const fn kind(self) -> JobErrorKind {
        let (code, status, retryable, title) = match self {
            Self::HandlerError => ("HANDLER_ERROR", 500, true, "The handler failed"),
            Self::Panic => ("HANDLER_PANIC", 500, true, "The handler panicked"),
            Self::Timeout => ("JOB_TIMEOUT", 504, true, "The attempt took too long"),
            Self::Canceled => ("JOB_CANCELED", 410, false, "The job was canceled"),
            Self::WorkerLost => ("WORKER_LOST", 500, true, "The worker died or lost its lease"),
            Self::ResultTooLarge => ("RESULT_TOO_LARGE", 500, false, "The result is too large"),
            Self::ResultUnserializable => ("RESULT_UNSERIALIZABLE", 500, false, "The result cannot be written as JSON"),
            Self::PayloadUnreadable => {
                ("PAYLOAD_UNREADABLE", 500, true, "The stored request cannot be read by this worker")
            }
        };
        JobErrorKind { code, status, retryable, title }
    }

    pub(crate) const fn code(self) -> &'static str {
        self.kind().code
    }

    pub(crate) fn record(self, detail: Option<String>) -> ErrorRecord {
        let JobErrorKind { code, status, retryable, title } = self.kind();
        let detail = detail.map(|detail| cut(detail, DETAIL_BYTES));
        ErrorRecord { code: code.into(), title: title.into(), status, detail, retryable }
    }
}

/// The title of a code: from the table, or a common one for the application's own codes.
fn title(code: &str) -> Cow<'static, str> {
    let known = Builtin::ALL.into_iter().find(|known| known.code() == code);
    known.map_or("The job failed", |known| known.kind().title).into()
}

/// Cuts text to at most `bytes`, between characters.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// What a panic said, if it said something.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_on_error_is_retryable_and_keeps_its_message_to_itself() {
        let error = || JobError::from("postgres://user:secret@db failed");
        let (failure, record) = error().record(false);
        assert_eq!((failure, record.retryable), (Failure::Retryable, true));
        assert_eq!((record.code.as_ref(), record.status, record.detail), ("HANDLER_ERROR", 500, None));
        assert!(error().record(true).1.detail.is_some_and(|detail| detail.contains("secret")));
    }

    #[test]
    fn details_for_callers_are_kept_and_cut_between_characters() {
        let (_, record) = JobError::permanent("NO", "é".repeat(5000)).status(422).record(false);
        assert_eq!((record.status, record.retryable), (422, false));
        assert_eq!(record.detail.map(|detail| detail.len()), Some(4096));
        assert_eq!(JobError::permanent("X".repeat(5000), "").record(false).1.code.len(), 100);
        assert_eq!(JobError::permanent("NO", "").status(200).record(false).1.status, 500);
    }
}
