//! The state machine of a job, and the effect of an ended attempt.
//!
//! Pure functions. Must not know async, I/O, clocks or HTTP: `now`, policy and randomness are passed in.
//! Stores written in Rust call them. Others are held to the same decisions by the conformance suite.
//!
//! ```text
//!            claim               completed
//!  Queued ───────────▶ InProgress ─────────▶ Completed
//!    ▲  ▲ released,│lost │   │ failed, lost too often
//!    │  └──────────┘     │   └─────────────▶ Failed
//!    │ due        retry │
//!  Scheduled ◀───────────┘        Canceled ◀── cancel, from any of the three
//! ```

mod attempt;
mod retention;

use std::time::Duration;

pub use attempt::{AttemptEffect, EndedAttempt, ErrorEffect, RunningJob, attempts, end_attempt};
pub use retention::{expires_at, forget_at, gone_until};

use crate::{
    job::{ErrorRecord, JobStatus},
    retry::RetryPolicy,
    store::Outcome,
};

/// The state after a cancel request; none for a terminal job.
///
/// A running job with a cancel request stays `InProgress` until its attempt ends. Then it becomes `Canceled`, unless the
/// handler completed.
pub const fn state_after_cancel(status: JobStatus) -> Option<JobStatus> {
    match status {
        JobStatus::Queued | JobStatus::Scheduled => Some(JobStatus::Canceled),
        JobStatus::InProgress => Some(JobStatus::InProgress),
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => None,
    }
}

/// How a handler failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Retry after the delay of the retry policy.
    Retryable,
    /// Retry after this delay.
    RetryAfter(Duration),
    /// Do not retry.
    Permanent,
    /// The handler stopped on a cancel request.
    Canceled,
}

/// The outcome of a failed attempt: a retry if the failure allows one and retries are left.
///
/// `random` is 0 to 1, see [`RetryPolicy::delay`].
pub fn settle_failure(
    failure: Failure,
    error: ErrorRecord,
    retry_count: u32,
    max_retries: u32,
    policy: &RetryPolicy,
    random: f64,
) -> Outcome {
    let delay = match failure {
        Failure::Canceled => return Outcome::Canceled { error },
        Failure::Permanent => return Outcome::Failed { error },
        _ if retry_count >= max_retries => return Outcome::Failed { error },
        Failure::RetryAfter(delay) => delay,
        Failure::Retryable => policy.delay(retry_count.saturating_add(1), random),
    };
    Outcome::Retry { delay, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_ends_waiting_jobs_alone() {
        use JobStatus::{Canceled, InProgress};
        let states = [Some(Canceled), Some(Canceled), Some(InProgress), None, None, None];
        assert_eq!(JobStatus::ALL.map(state_after_cancel), states);
    }

    fn error() -> ErrorRecord {
        ErrorRecord {
            code: "TEST".into(),
            title: "A test".into(),
            status: 500,
            detail: None,
            retryable: true,
            sources: Vec::new(),
        }
    }

    #[test]
    fn failure_settles_by_kind_and_retries_left() {
        let policy = RetryPolicy::default();
        let settle = |failure, retries| settle_failure(failure, error(), retries, 3, &policy, 1.0);
        let wait = Duration::from_secs(77);
        for retries in 0..3 {
            let delay = policy.delay(retries + 1, 1.0);
            assert_eq!(settle(Failure::Retryable, retries), Outcome::Retry { delay, error: error() });
            let expected = Outcome::Retry { delay: wait, error: error() };
            assert_eq!(settle(Failure::RetryAfter(wait), retries), expected);
        }
        for (failure, retries) in [(Failure::Retryable, 3), (Failure::RetryAfter(wait), 4), (Failure::Permanent, 0)] {
            assert_eq!(settle(failure, retries), Outcome::Failed { error: error() });
        }
        assert_eq!(settle(Failure::Canceled, 0), Outcome::Canceled { error: error() });
    }
}
