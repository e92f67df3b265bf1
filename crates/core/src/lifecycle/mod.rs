//! The state machine of a job: which state follows which event, and what a finished attempt means.
//!
//! Pure functions. Must not know async, I/O, clocks or HTTP: `now`, policy and randomness are passed in.
//! Every store obeys [`next`]; stores written in Rust call it, others are held to it by the conformance suite.
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

/// What can happen to a job.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A worker takes it.
    Claim,
    /// A caller asks to cancel it.
    Cancel,
    /// Its running attempt ended like this. `Lost` with `last` is one loss more than the job may have.
    Ended {
        /// How.
        outcome: AttemptOutcome,
        /// Only for `Lost`: no further loss is allowed.
        last: bool,
    },
}

/// The state after `event`, or `None` if a job in this state does not take it.
///
/// A running job that was asked to cancel stays `InProgress` until its attempt ends; whatever that end is,
/// it becomes `Canceled`, unless the handler still completed.
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

/// How the attempt counts that ended like `outcome` and left the job in `after`:
/// an end that a cancel request turned into `Canceled` is a canceled attempt.
pub const fn recorded(outcome: AttemptOutcome, after: JobStatus) -> AttemptOutcome {
    match after {
        JobStatus::Canceled => AttemptOutcome::Canceled,
        _ => outcome,
    }
}

/// How a handler failed, and what that says about trying again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Try again by the retry policy.
    Retryable,
    /// Try again after this long.
    RetryAfter(Duration),
    /// Trying again cannot help.
    Permanent,
    /// The handler stopped because it was told to.
    Canceled,
}

/// What to settle for an attempt that failed: another attempt while retries are left, else the end.
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

    /// The whole table, one letter for each event above: the state's initial, `-` for refused
    /// (`q`ueued, `s`cheduled, `i`n progress, `c`ompleted, `f`ailed, `x` canceled).
    const TABLE: [(JobStatus, &str, &str); 6] = [
        // state                   asked to cancel: no, yes
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
    fn every_state_and_event_is_as_the_table_says() {
        assert_eq!(TABLE.map(|(s, ..)| s), JobStatus::ALL);
        for (status, plain, asked) in TABLE {
            for (cancel_requested, row) in [(false, plain), (true, asked)] {
                let found: String = EVENTS.iter().map(|e| letter(next(status, cancel_requested, *e))).collect();
                assert_eq!(found, row, "{status}, cancel requested: {cancel_requested}");
            }
        }
    }

    #[test]
    fn nothing_leaves_a_terminal_state_and_every_other_state_has_an_end() {
        for status in JobStatus::ALL {
            let leaves = EVENTS.iter().any(|e| next(status, false, *e).is_some());
            assert_eq!(leaves, !status.is_terminal(), "{status}");
        }
    }

    fn error() -> ErrorRecord {
        ErrorRecord { code: "TEST".into(), title: "A test".into(), status: 500, detail: None, retryable: true }
    }

    #[test]
    fn failures_settle_by_kind_and_by_retries_left() {
        let policy = RetryPolicy::default();
        let settle = |failure, retries| settle_failure(failure, error(), retries, 3, &policy, 1.0);
        let wait = Duration::from_secs(77);
        for retries in 0..3 {
            let delay = policy.delay(retries + 1, 1.0);
            assert_eq!(settle(Failure::Retryable, retries), Outcome::Retry { delay, error: error() });
            let told = Outcome::Retry { delay: wait, error: error() };
            assert_eq!(settle(Failure::RetryAfter(wait), retries), told);
        }
        for (failure, retries) in [(Failure::Retryable, 3), (Failure::RetryAfter(wait), 4), (Failure::Permanent, 0)] {
            assert_eq!(settle(failure, retries), Outcome::Failed { error: error() });
        }
        assert_eq!(settle(Failure::Canceled, 0), Outcome::Canceled { error: error() });
    }
}
