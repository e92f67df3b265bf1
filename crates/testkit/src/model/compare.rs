//! Comparison of answers, and durations that make times distinct. Must not know the model.

use std::{fmt::Debug, time::Duration};

use async_endpoints_core::StoreError;

/// Seconds with odd milliseconds.
pub(super) fn odd(seconds: u8, millis: u64) -> Duration {
    Duration::from_secs(seconds.into()) + Duration::from_millis(millis)
}

/// The result of a comparison, with a description of the difference.
pub(super) type Comparison = Result<(), String>;

/// Compares two values.
pub(super) fn same<T: PartialEq + Debug>(what: &str, store: &T, model: &T) -> Comparison {
    if store == model { Ok(()) } else { Err(format!("{what}\n  store: {store:?}\n  model: {model:?}")) }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes a value")]
pub(super) fn answered(error: StoreError) -> String {
    format!("the store answers: {error}")
}
