//! Errors of handlers, and the error codes that the library itself gives to jobs.
//! Must not know HTTP responses.

use std::{borrow::Cow, error::Error, fmt, iter::successors, time::Duration};

use async_endpoints_core::{
    job::ErrorRecord,
    lifecycle::Failure,
    limits::{ERROR_SOURCE_BYTES, ERROR_SOURCES},
};

/// Maximum size of an error's detail, in bytes.
const DETAIL_BYTES: usize = 4 << 10;
/// Maximum size of an error's code, in bytes.
const CODE_BYTES: usize = 100;
/// Maximum size of an error's title, in bytes.
const TITLE_BYTES: usize = 200;

/// The error of a handler, and whether a retry can help.
///
/// `?` turns any error into a retryable one. Its message may contain secrets, so callers see only the code
/// `HANDLER_ERROR`, unless [`Options::error_details`](crate::Options::error_details) is on. The details given to
/// [`permanent`](Self::permanent), [`retryable`](Self::retryable) and [`retry_after`](Self::retry_after) are shown to
/// callers.
///
/// Operators see the message of the error and of its [sources](std::error::Error::source) too: in the log, in
/// `GET /jobs/{id}/logs` and as `error.sources` of the job. [`with_source`](Self::with_source) adds such a cause to an
/// error with a code of its own. [`DomainError`](crate::DomainError) gives the errors of an enum their codes.
///
/// ```
/// # use async_endpoints::JobError;
/// fn parse(text: &str) -> Result<u32, JobError> {
///     if text.is_empty() {
///         return Err(JobError::permanent("NOTHING_TO_PARSE", "The text is empty.").status(422));
///     }
///     Ok(text.parse()?) // retryable by default: see `JobHandler::classify`
/// }
/// assert!(parse("x").is_err());
/// ```
#[derive(Debug)]
pub struct JobError {
    pub(crate) failure: Failure,
    pub(crate) code: Cow<'static, str>,
    pub(crate) status: u16,
    /// None for the title of the code.
    pub(crate) title: Option<Cow<'static, str>>,
    pub(crate) detail: Option<String>,
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

/// Whether a retry can help, as decided by [`JobHandler::classify`](crate::JobHandler::classify).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Classification {
    /// The job fails.
    Permanent,
    /// The job is retried after the retry policy's delay.
    Retryable,
    /// The job is retried after this delay.
    RetryAfter(Duration),
}

impl JobError {
    /// The job fails without a retry.
    ///
    /// The code is `UPPER_SNAKE_CASE`. At most 100 bytes of the code and 4 KiB of the detail are kept.
    pub fn permanent(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::Permanent, code.into(), detail.into())
    }

    /// The job is retried after the retry policy's delay.
    pub fn retryable(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::Retryable, code.into(), detail.into())
    }

    /// The job is retried after `delay`.
    pub fn retry_after(delay: Duration, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(Failure::RetryAfter(delay), code.into(), detail.into())
    }

    /// The job ends Canceled. For a handler that stops because its token fired or because the job became pointless.
    pub fn canceled() -> Self {
        Self {
            failure: Failure::Canceled,
            code: Builtin::Canceled.code().into(),
            status: 410,
            title: None,
            detail: None,
            source: None,
        }
    }

    /// Sets the HTTP status that a synchronous endpoint would have answered. Defaults to 500, also for a status outside
    /// 400–599.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = if (400..600).contains(&status) { status } else { 500 };
        self
    }

    /// Sets the title of all errors with this code, a few words. Defaults to "The job failed". At most 200 bytes are kept.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Attaches the error that caused this one. Operators see its message and its sources, callers do not.
    ///
    /// ```
    /// # use async_endpoints::JobError;
    /// fn open(path: &str) -> Result<std::fs::File, JobError> {
    ///     let failed = |error| JobError::permanent("NO_TEMPLATE", "The template is missing.").with_source(error);
    ///     std::fs::File::open(path).map_err(failed)
    /// }
    /// ```
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error's code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The HTTP status that a synchronous endpoint would have answered.
    pub fn http_status(&self) -> u16 {
        self.status
    }

    /// The title of all errors with this code.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| title_of(&self.code))
    }

    /// The detail that callers see beside the code.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The error that was returned with `?` or attached with [`with_source`](Self::with_source).
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// Whether the job is retried after this error, while retries are left.
    pub fn is_retryable(&self) -> bool {
        matches!(self.failure, Failure::Retryable | Failure::RetryAfter(_))
    }

    fn new(failure: Failure, code: Cow<'static, str>, detail: String) -> Self {
        Self { failure, code, status: 500, title: None, detail: Some(detail), source: None }
    }

    /// The error that `?` passed on; none if the error has a code of its own.
    pub(crate) fn passed_on(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source().filter(|_| self.code == Builtin::HandlerError.code())
    }

    pub(crate) fn classify(&mut self, classification: Classification) {
        self.failure = match classification {
            Classification::Permanent => Failure::Permanent,
            Classification::Retryable => Failure::Retryable,
            Classification::RetryAfter(wait) => Failure::RetryAfter(wait),
        };
    }

    /// Converts the error into its stored form. `details` also includes the message of an error returned with `?`.
    pub(crate) fn record(self, details: bool) -> (Failure, ErrorRecord) {
        let retryable = self.is_retryable();
        let sources = self.source.map_or_else(Vec::new, |source| chain(&*source));
        let shown = self.detail.or_else(|| sources.first().filter(|_| details).cloned());
        let title = self.title.unwrap_or_else(|| title_of(&self.code).into());
        let record = ErrorRecord {
            title: cut_cow(title, TITLE_BYTES),
            code: cut_cow(self.code, CODE_BYTES),
            status: self.status,
            detail: shown.map(|detail| cut(detail, DETAIL_BYTES)),
            retryable,
            sources,
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
            title: None,
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
        ErrorRecord { code: code.into(), title: title.into(), status, detail, retryable, sources: Vec::new() }
    }
}

/// The title of a code: from the table, or a common one for the application's own codes.
fn title_of(code: &str) -> &'static str {
    let known = Builtin::ALL.into_iter().find(|known| known.code() == code);
    known.map_or("The job failed", |known| known.kind().title)
}

/// Truncates text to at most `bytes` bytes, without copying a shorter one.
fn cut_cow(text: Cow<'static, str>, bytes: usize) -> Cow<'static, str> {
    if text.len() > bytes { cut(text.into_owned(), bytes).into() } else { text }
}

/// Truncates text to at most `bytes` bytes, at a character boundary.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The messages of an error and of its sources, outermost first.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    bounded(successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source()).map(ToString::to_string))
}

/// The first texts, within the limits of [`ErrorRecord::sources`].
pub(crate) fn bounded(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut left = ERROR_SOURCE_BYTES;
    let cut_texts = texts.take(ERROR_SOURCES).map_while(|text| {
        let text = (left > 0).then(|| cut(text, left))?;
        left -= text.len();
        Some(text)
    });
    cut_texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_mark_error_is_retryable_without_detail() {
        let error = || JobError::from("postgres://user:secret@db failed");
        let (failure, record) = error().record(false);
        assert_eq!((failure, record.retryable), (Failure::Retryable, true));
        assert_eq!((record.code.as_ref(), record.status, record.detail), ("HANDLER_ERROR", 500, None));
        assert!(error().record(true).1.detail.is_some_and(|detail| detail.contains("secret")));
    }

    #[test]
    fn detail_is_cut_at_character_boundary() {
        let (_, record) = JobError::permanent("NO", "é".repeat(5000)).status(422).record(false);
        assert_eq!((record.status, record.retryable), (422, false));
        assert_eq!(record.detail.map(|detail| detail.len()), Some(4096));
        assert_eq!(JobError::permanent("X".repeat(5000), "").record(false).1.code.len(), 100);
        assert_eq!(JobError::permanent("NO", "").status(200).record(false).1.status, 500);
    }

    #[test]
    fn title_is_own_or_common() {
        let title = |error: JobError| (error.title().to_owned(), error.record(false).1.title.into_owned());
        let both = |title: &str| (title.to_owned(), title.to_owned());
        assert_eq!(title(JobError::permanent("NO", "")), both("The job failed"));
        assert_eq!(title(JobError::from("x")), both("The handler failed"));
        assert_eq!(title(JobError::permanent("NO", "").with_title("No paper")), both("No paper"));
        assert_eq!(title(JobError::permanent("NO", "").with_title("x".repeat(201))).1.len(), 200);
    }

    #[test]
    fn sources_are_the_error_chain() {
        let inner = std::io::Error::other("disk full");
        let outer = std::io::Error::other(Outer(inner));
        let sources = |error: JobError| error.record(false).1.sources;
        assert_eq!(sources(JobError::from(outer)), ["cannot save", "disk full"]);
        let with_code = JobError::permanent("NO", "shown").with_source("hidden");
        assert_eq!(with_code.code(), "NO");
        assert_eq!(sources(with_code), ["hidden"]);
        assert!(sources(JobError::permanent("NO", "shown")).is_empty());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot save")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn sources_are_bounded() {
        let count = bounded((0..100).map(|n| n.to_string())).len();
        let long = bounded(std::iter::repeat_with(|| "é".repeat(1000)));
        assert_eq!(count, 16);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [2000, 2000, 96]);
    }
}
