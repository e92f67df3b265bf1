//! The demo's handlers. Each file has a job type, its request, its result and its handler.
//!
//! Each handler writes the start and the end of its attempts to the [`Ledger`](crate::ledger::Ledger).

pub(crate) mod monitored;
pub(crate) mod performance;
pub(crate) mod sleep;
pub(crate) mod traced;
pub(crate) mod unreliable;

use std::{fmt::Display, ops::RangeInclusive};

use async_endpoints::JobError;
use serde::{Deserialize, Deserializer, de};

use crate::weather::Weather;

/// Deserializes a number and checks its range.
fn number_within<'de, D, T>(deserializer: D, range: &RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let number = T::deserialize(deserializer)?;
    if range.contains(&number) {
        return Ok(number);
    }
    Err(de::Error::custom(format!("{number} is out of range, expected {} to {}", range.start(), range.end())))
}

const INVALID_REQUEST: &str = "INVALID_REQUEST";
const UNKNOWN_CATEGORY: &str = "UNKNOWN_CATEGORY";

/// A permanent error for a well-formed request with contradictory values.
fn invalid(detail: impl Into<String>) -> JobError {
    JobError::permanent(INVALID_REQUEST, detail).status(422)
}

/// Checks that the weather table has the category.
fn known_category(weather: &Weather, category: &str) -> Result<(), JobError> {
    let known = weather.categories()?;
    if known.iter().any(|name| name == category) {
        return Ok(());
    }
    let detail = format!("Unknown category {category:?}: expected {}.", known.join(", "));
    Err(JobError::permanent(UNKNOWN_CATEGORY, detail).status(404))
}

/// The current time, as in results.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
