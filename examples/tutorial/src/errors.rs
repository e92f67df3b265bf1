//! What can go wrong with a plan, and what callers see of it.

use async_endpoints::{DomainError, JobError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("a payment of {payment} does not cover the first month's interest, {interest}")]
    NeverRepaid { interest: u64, payment: u64 },
    #[error("the base rate cannot be read")]
    NoRate(#[from] std::io::Error),
    #[error("the base rate {0:?} is not a number")]
    InvalidRate(String),
}

impl DomainError for PlanError {
    const CODES: &'static [&'static str] = &["NEVER_REPAID", "RATE_UNAVAILABLE"];

    fn job_error(&self) -> JobError {
        match self {
            Self::NeverRepaid { .. } => {
                JobError::permanent("NEVER_REPAID", self.to_string()).status(422).with_title("The payment is too low")
            }
            // The causes stay with operators.
            Self::NoRate(_) | Self::InvalidRate(_) => {
                JobError::retryable("RATE_UNAVAILABLE", "The base rate is not available.").status(503)
            }
        }
    }
}
