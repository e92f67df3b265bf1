//! A calendar day in a request.

use std::{fmt, str::FromStr};

use jiff::{civil::Date, tz::TimeZone};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

/// A day: `YYYY-MM-DD`, or an RFC 3339 time, whose day in UTC counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = Date)]
pub(crate) struct Day(Date);

impl Day {
    pub(crate) const fn date(self) -> Date {
        self.0
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(time.to_zoned(TimeZone::UTC).date()));
        }
        text.parse().map(Self).map_err(|_| format!("invalid day {text:?}: expected YYYY-MM-DD or an RFC 3339 time"))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_parsed() {
        for (text, expected) in [
            ("2012-01-31", "2012-01-31"),
            ("2012-01-31T10:00:00", "2012-01-31"),
            ("2012-01-31T10:00:00Z", "2012-01-31"),
            ("2012-01-31T10:00:00.123+00:00", "2012-01-31"),
            ("2012-01-31T23:30:00-02:00", "2012-02-01"),
        ] {
            assert_eq!(text.parse::<Day>().map(|day| day.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "31.01.2012", "2012-02-30", "2012-13-01", "20120131x"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
