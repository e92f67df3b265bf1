//! Why endpoints cannot be built.

use std::fmt;

use async_endpoints_core::{JobName, job::InvalidName};

use crate::{alerts::InvalidSetting, options::OptionsError};

/// A configuration error found by [`Builder::build`](super::Builder::build).
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The name of a job type is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A setting is invalid.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A path is invalid, or conflicts with the path of another endpoint.
    #[error("cannot route {method} {path} of {name}{}: {reason}", .other.as_ref().map(|other| format!(" beside {other}")).unwrap_or_default())]
    Path {
        /// The endpoint's method.
        method: String,
        /// The endpoint's path.
        path: String,
        /// The endpoint's job type.
        name: String,
        /// Job type, method and path of the endpoint in conflict.
        other: Option<String>,
        /// The reason.
        reason: String,
    },
    /// A rule of a job type can never work.
    #[error("invalid {rule} {value:?} of {name}: expected {expected}")]
    Rule {
        /// The job type.
        name: JobName,
        /// The rule.
        rule: &'static str,
        /// The invalid value.
        value: String,
        /// A description of valid values.
        expected: &'static str,
    },
    /// One job type has two handlers.
    #[error("{0} has two handlers")]
    TwoHandlers(JobName),
    /// The name of a health check is invalid, or is given twice.
    #[error("invalid health check {name:?}: expected {expected}")]
    HealthCheck {
        /// The name.
        name: String,
        /// A description of valid names.
        expected: &'static str,
    },
    /// A setting of alerts with which they cannot work.
    #[error("invalid {setting} {value:?}: expected {expected}")]
    Alerts {
        /// The setting.
        setting: String,
        /// The invalid value.
        value: String,
        /// A description of valid values.
        expected: &'static str,
    },
    /// The [`Telemetry`] already measures another set of endpoints.
    #[error("this Telemetry already measures other endpoints: expected one Telemetry for each set of endpoints")]
    TelemetryTaken,
    /// Two types have the same schema name in the OpenAPI document.
    #[error("two types have the schema name {0}: rename one with #[schema(as = …)]")]
    TwoSchemas(String),
    /// Two operations have the same id in the OpenAPI document.
    #[error("two operations have the id {0}: give one of the endpoints another operation_id")]
    TwoOperations(String),
    /// Two job types have the same name and different rules.
    #[error(
        "{name} is declared twice, with different rules: {rule} is {first} and {second}. Declare the job type as one \
         constant and use it in both places"
    )]
    TwoTypes {
        /// The name of both job types.
        name: JobName,
        /// The first rule in which they differ.
        rule: &'static str,
        /// The rule of the first.
        first: String,
        /// The rule of the second.
        second: String,
    },
}

/// As [`Display`](fmt::Display): `main` prints this form of an error that it returns.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<InvalidSetting> for BuildError {
    fn from(InvalidSetting { setting, value, expected }: InvalidSetting) -> Self {
        Self::Alerts { setting, value, expected }
    }
}
