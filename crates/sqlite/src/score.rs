//! Scores: the position of a job in the index of its state.

use async_endpoints_core::{Priority, Timestamp};

/// Order numbers stay below this until the year 2136, so that each priority has its own range of scores.
pub(crate) const PRIORITY_SPAN: i64 = 900_000_000_000_000;

/// Milliseconds from the Unix epoch to 2025.
const EPOCH_MILLIS: i64 = 1_735_689_600_000;

/// The smallest order number of a point in time.
pub(crate) fn order_number_at(time: Timestamp) -> i64 {
    let millis = time.as_millis().saturating_sub(EPOCH_MILLIS).max(0);
    millis.saturating_mul(256).min(PRIORITY_SPAN - 1)
}

/// Sorts queued jobs by descending priority, then by order number.
pub(crate) fn queued_score(priority: Priority, order_number: i64) -> i64 {
    i64::from(9 - priority.get()) * PRIORITY_SPAN + order_number
}

/// The priority in a score of a queued job.
pub(crate) fn priority_of(score: i64) -> Priority {
    Priority::new(u8::try_from(9 - score / PRIORITY_SPAN).unwrap_or_default())
}

/// A point in time as a score.
pub(crate) fn time_score(time: Timestamp) -> i64 {
    time.as_micros().max(0)
}
