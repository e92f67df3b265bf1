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
    job::{AttemptOutcome, ErrorRecord, JobStatus},
    retry::RetryPolicy,
    store::Outcome,
};

/// An event in the life of a job.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Scheduled job is due.
    Due,
    /// A worker claims the job.
    Claim,
    /// A caller cancels the job.
    Cancel,
    /// The running attempt ended.
    Ended {
        /// How it ended.
        outcome: AttemptOutcome,
        /// Only for `Lost`: no further loss is allowed, so the job fails.
        last: bool,
    },
}

/// The state after `event`, or `None` if a job in this state cannot have that event.
///
/// A running job with a cancel request stays `InProgress` until its attempt ends. Then it becomes `Canceled`, unless the
/// handler completed.
pub fn next(status: JobStatus, cancel_requested: bool, event: Event) -> Option<JobStatus> {
    use JobStatus as S;
    Some(match (status, event) {
        (S::Scheduled, Event::Due) => S::Queued,
        (S::Queued | S::Scheduled, Event::Claim) => S::InProgress,
        (S::Queued | S::Scheduled, Event::Cancel) => S::Canceled,
        (S::InProgress, Event::Cancel) => S::InProgress,
        (S::InProgress, Event::Ended { outcome, last }) => state_after_attempt(outcome, cancel_requested, last),
        _ => return None,
    })
}

const fn state_after_attempt(outcome: AttemptOutcome, cancel_requested: bool, last_loss: bool) -> JobStatus {
    match outcome {
        AttemptOutcome::Completed => JobStatus::Completed,
        _ if cancel_requested => JobStatus::Canceled,
        AttemptOutcome::Canceled => JobStatus::Canceled,
        AttemptOutcome::Retried => JobStatus::Scheduled,
        AttemptOutcome::Failed => JobStatus::Failed,
        AttemptOutcome::Lost if last_loss => JobStatus::Failed,
        AttemptOutcome::Released | AttemptOutcome::Lost => JobStatus::Queued,
    }
}

/// The outcome to record for an attempt that left the job in state `after`. An attempt that a cancel request turned into
/// `Canceled` is recorded as canceled.
pub const fn recorded(outcome: AttemptOutcome, after: JobStatus) -> AttemptOutcome {
    match after {
        JobStatus::Canceled => AttemptOutcome::Canceled,
        _ => outcome,
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

    const EVENTS: [Event; 10] = [
        Event::Due,
        Event::Claim,
        Event::Cancel,
        Event::Ended { outcome: AttemptOutcome::Completed, last: false },
        Event::Ended { outcome: AttemptOutcome::Retried, last: false },
        Event::Ended { outcome: AttemptOutcome::Failed, last: false },
        Event::Ended { outcome: AttemptOutcome::Canceled, last: false },
        Event::Ended { outcome: AttemptOutcome::Released, last: false },
        Event::Ended { outcome: AttemptOutcome::Lost, last: false },
        Event::Ended { outcome: AttemptOutcome::Lost, last: true },
    ];

    /// One letter for each of `EVENTS`: the initial of the next state (`x` for Canceled), or `-` if there is none.
    const TABLE: [(JobStatus, &str, &str); 6] = [
        // state                   cancel requested: no, yes
        (JobStatus::Queued, "-ix-------", "-ix-------"),
        (JobStatus::Scheduled, "qix-------", "qix-------"),
        (JobStatus::InProgress, "--icsfxqqf", "--icxxxxxx"),
        (JobStatus::Completed, "----------", "----------"),
        (JobStatus::Failed, "----------", "----------"),
        (JobStatus::Canceled, "----------", "----------"),
    ];

    fn letter(status: Option<JobStatus>) -> char {
        status.map_or('-', |s| match s {
            JobStatus::Queued => 'q',
            JobStatus::Scheduled => 's',
            JobStatus::InProgress => 'i',
            JobStatus::Completed => 'c',
            JobStatus::Failed => 'f',
            JobStatus::Canceled => 'x',
        })
    }

    #[test]
    fn every_state_and_event_matches_table() {
        assert_eq!(TABLE.map(|(s, ..)| s), JobStatus::ALL);
        for (status, plain, requested) in TABLE {
            for (cancel_requested, row) in [(false, plain), (true, requested)] {
                let found: String = EVENTS.iter().map(|e| letter(next(status, cancel_requested, *e))).collect();
                assert_eq!(found, row, "{status}, cancel requested: {cancel_requested}");
            }
        }
    }

    #[test]
    fn only_terminal_states_are_final() {
        for status in JobStatus::ALL {
            let leaves = EVENTS.iter().any(|e| next(status, false, *e).is_some());
            assert_eq!(leaves, !status.is_terminal(), "{status}");
        }
    }

    fn error() -> ErrorRecord {
        ErrorRecord { code: "TEST".into(), title: "A test".into(), status: 500, detail: None, retryable: true }
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
