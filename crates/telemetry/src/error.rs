//! Errors.

use std::fmt;

/// Why telemetry cannot be set up.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A setting is invalid or not supported.
    #[error("invalid {name} {value:?}: expected {expected}")]
    Setting {
        /// The variable or setting.
        name: String,
        /// Its value.
        value: String,
        /// Valid values.
        expected: String,
    },
    /// The OTLP exporter cannot start.
    #[error("cannot export telemetry to {endpoint}: {reason}")]
    Exporter {
        /// The endpoint, without credentials.
        endpoint: String,
        /// The cause.
        reason: String,
    },
}

/// As [`Display`](fmt::Display): `main` prints this form of an error that it returns.
impl fmt::Debug for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TelemetryError {
    pub(crate) fn setting(name: impl Into<String>, value: impl Into<String>, expected: &str) -> Self {
        Self::Setting { name: name.into(), value: value.into(), expected: expected.to_owned() }
    }
}

/// Why there is no exposition.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionError {
    /// Telemetry is disabled, or the application has its own meter provider.
    #[error("metrics are disabled or read by the application's own meter provider")]
    NoReader,
    /// The SDK failed to collect, for example because a callback panicked.
    #[error("metrics cannot be collected: {0}")]
    Collect(String),
}
