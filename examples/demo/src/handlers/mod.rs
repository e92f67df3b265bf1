//! What the demo's jobs do. Each handler is a file: its job type, its request, its result, and the work.
//!
//! Every attempt of every handler is entered into the [`Ledger`](crate::ledger::Ledger) while it runs.

pub(crate) mod monitored;
pub(crate) mod performance;
pub(crate) mod sleep;
pub(crate) mod traced;
pub(crate) mod unreliable;

use std::{fmt::Display, ops::RangeInclusive};

use async_endpoints::JobError;
use serde::{Deserialize, Deserializer, de};

use crate::weather::Weather;

/// A number of a request. One out of its range is refused with the request, and named by its field.
fn number_within<'de, D, T>(deserializer: D, range: &RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let number = T::deserialize(deserializer)?;
    if range.contains(&number) {
        return Ok(number);
    }
    Err(de::Error::custom(format!("it is {number}; it is from {} to {}", range.start(), range.end())))
}

/// The request is well-formed and asks for something that makes no sense: trying again cannot help.
fn invalid(detail: impl Into<String>) -> JobError {
    JobError::permanent("INVALID_REQUEST", detail).status(422)
}

/// The category is one that the weather table has.
fn known_category(weather: &Weather, category: &str) -> Result<(), JobError> {
    let known = weather.categories()?;
    if known.iter().any(|name| name == category) {
        return Ok(());
    }
    let detail = format!("There is no category {category:?}; known are {}.", known.join(", "));
    Err(JobError::permanent("UNKNOWN_CATEGORY", detail).status(404))
}

/// The time now as results carry it.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
