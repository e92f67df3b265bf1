//! Numbers, durations and errors in sentences.

use std::time::Duration;

use async_endpoints_core::{Timestamp, job::ErrorRecord};

use super::{Reason, ReasonCode};

/// A reason without times.
pub(super) fn reason(code: ReasonCode, detail: impl Into<String>) -> Reason {
    Reason { code, since: None, until: None, detail: detail.into() }
}

impl Reason {
    pub(super) fn since(self, since: impl Into<Option<Timestamp>>) -> Self {
        Self { since: since.into(), ..self }
    }

    pub(super) fn until(self, until: impl Into<Option<Timestamp>>) -> Self {
        Self { until: until.into(), ..self }
    }
}

/// A number with its noun: `1 job`, `2 jobs`.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// A duration in its two largest units: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`.
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => {
            let minutes = (seconds + 30) / 60;
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// An error with its description, if it has one: `BROKEN (The disk is full.)`.
pub(super) fn error(error: Option<&ErrorRecord>) -> String {
    match error {
        Some(ErrorRecord { code, detail: Some(detail), .. }) => format!("{code} ({detail})"),
        Some(ErrorRecord { code, .. }) => code.to_string(),
        None => "an unknown error".to_owned(),
    }
}

/// The code of an error.
pub(super) fn code(error: Option<&ErrorRecord>) -> &str {
    error.map_or("an unknown error", |error| &error.code)
}
