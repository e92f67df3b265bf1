//! Settings from variables, and durations in seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::OptionsError;

/// A variable of this process's environment.
pub(crate) fn env_var(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// What a variable of seconds expects.
pub(crate) const SECONDS: &str = "a number of seconds, such as 8 or 0.5";

/// Variables of one prefix. Unset and empty ones are the same.
pub(crate) struct Vars<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) vars: &'a dyn Fn(&str) -> Option<String>,
}

impl Vars<'_> {
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, into: &mut T) -> Result<(), OptionsError> {
        self.read(name, into, "a whole number", |text| text.parse().ok())
    }

    pub(crate) fn seconds(&self, name: &str, into: &mut Duration) -> Result<(), OptionsError> {
        self.read(name, into, SECONDS, |text| duration(text.parse().ok()?))
    }

    pub(crate) fn read<T>(
        &self,
        name: &str,
        into: &mut T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<(), OptionsError> {
        if let Some(value) = self.text(name) {
            let name = self.name(name);
            let error = || OptionsError { name, value: value.clone(), expected: expected.to_owned() };
            *into = parse(value.trim()).ok_or_else(error)?;
        }
        Ok(())
    }

    /// The value; none if it is unset or empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.vars)(&self.name(name)).filter(|value| !value.trim().is_empty())
    }

    /// The whole name.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

const YEAR: f64 = 365.0 * 24.0 * 3600.0;

/// Converts seconds into a duration of at most 100 years.
pub(crate) fn duration(seconds: f64) -> Option<Duration> {
    (0.0..=100.0 * YEAR).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Reads a field of seconds.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    duration(seconds)
        .ok_or_else(|| serde::de::Error::custom(format!("invalid duration {seconds}: expected a number of seconds")))
}
