//! Errors of an application: one type maps its errors to job errors, for the handlers of a job type and for validators.

use std::{error::Error, fmt};

use crate::error::JobError;

/// An error type of the application, with code, status, title, detail and retryability of each error in one place.
///
/// [`JobType::errors`](crate::JobType::errors) connects it to a job type. `?` on such an error in a handler of that type then
/// makes a job error with its own code. Every other error that `?` passes on is still a retryable `HANDLER_ERROR`. In a
/// validator, `?` makes a [`Problem`](crate::Problem).
///
/// ```
/// use async_endpoints::{DomainError, JobContext, JobError, JobType};
///
/// #[derive(Debug, thiserror::Error)]
/// enum OrderError {
///     #[error("{0} is sold out")]
///     SoldOut(String),
///     #[error("the bank does not answer")]
///     Bank(#[from] std::io::Error),
/// }
///
/// impl DomainError for OrderError {
///     const CODES: &'static [&'static str] = &["SOLD_OUT", "BANK_UNAVAILABLE"];
///
///     fn job_error(&self) -> JobError {
///         match self {
///             Self::SoldOut(_) => JobError::permanent("SOLD_OUT", self.to_string()).status(409).with_title("Sold out"),
///             Self::Bank(_) => JobError::retryable("BANK_UNAVAILABLE", "The bank does not answer.").status(503),
///         }
///     }
/// }
///
/// const ORDER: JobType<String, u32> = JobType::new("Order").errors::<OrderError>();
///
/// async fn order(ctx: JobContext<String>) -> Result<u32, JobError> {
///     reserve(ctx.request())?; // SOLD_OUT
///     Ok(std::fs::read_to_string("next-number")?.parse()?) // HANDLER_ERROR
/// }
///
/// fn reserve(article: &str) -> Result<(), OrderError> {
///     Err(OrderError::SoldOut(article.to_owned()))
/// }
/// ```
///
/// Operators see the message of the error and of its sources, as for every error that `?` passes on. Callers see the detail
/// that [`job_error`](Self::job_error) sets.
///
/// The handler itself returns the error as the [source](JobError::source) of a job error. So a test of a handler compares
/// `error.source()` with `downcast_ref::<OrderError>()`, and a test of the error type compares `job_error()`.
pub trait DomainError: Error + Send + Sync + 'static {
    /// The codes of all errors, for metrics and the OpenAPI document.
    const CODES: &'static [&'static str];

    /// The job error with the code, status, title, detail and retryability of this error. Its source is set to this error.
    fn job_error(&self) -> JobError;
}

/// Maps errors that `?` passed on to the job errors of one [`DomainError`].
#[derive(Copy, Clone)]
pub(crate) struct DomainErrors(fn(&JobError) -> Option<JobError>);

impl DomainErrors {
    pub(crate) const fn of<E: DomainError>() -> Self {
        Self(|error| error.passed_on()?.downcast_ref::<E>().map(E::job_error))
    }

    pub(crate) fn apply(self, error: JobError) -> JobError {
        match (self.0)(&error) {
            Some(mapped) => JobError { source: error.source, ..mapped },
            None => error,
        }
    }
}

impl fmt::Debug for DomainErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainErrors")
    }
}
