//! Delay and priority that callers choose for their jobs, on endpoints that allow it.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use async_endpoints_core::{Priority, Timestamp};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{codes, codes::ProblemKind, headers, problem::Problem};
use crate::options;

const DELAY: HeaderName = HeaderName::from_static("x-async-delay");
const NOT_BEFORE: HeaderName = HeaderName::from_static("x-async-not-before");
const PRIORITY: HeaderName = HeaderName::from_static("x-async-priority");

/// What an endpoint lets its callers choose. Defaults to nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    /// The longest delay.
    pub(crate) delay: Option<Duration>,
    pub(crate) priority: Option<RangeInclusive<Priority>>,
}

/// What a caller chose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) delay: Option<Duration>,
    pub(super) priority: Option<Priority>,
}

impl Choices {
    /// Reads the choices of a request. A choice that the endpoint does not allow is refused, not ignored: a job that starts
    /// at once although its caller asked for a delay cannot be undone.
    pub(super) fn read(&self, headers: &HeaderMap, now: SystemTime) -> Result<Chosen, Problem> {
        let delay = text(headers, &DELAY, codes::INVALID_DELAY)?;
        let not_before = text(headers, &NOT_BEFORE, codes::INVALID_DELAY)?;
        let priority = text(headers, &PRIORITY, codes::INVALID_PRIORITY)?;
        if let (Some(_), Some(time)) = (delay, not_before) {
            return Err(refused(codes::INVALID_DELAY, "X-Async-Not-Before", time, "expected it without X-Async-Delay"));
        }
        let delay = match (delay, not_before) {
            (Some(seconds), _) => Some(self.delay(seconds)?),
            (None, Some(time)) => Some(self.not_before(time, now.into())?),
            (None, None) => None,
        };
        Ok(Chosen { delay, priority: priority.map(|number| self.priority(number)).transpose()? })
    }

    fn delay(&self, seconds: &str) -> Result<Duration, Problem> {
        let fail = |reason: &str| refused(codes::INVALID_DELAY, "X-Async-Delay", seconds, reason);
        let longest = self.delay.ok_or_else(|| fail("this endpoint does not allow a delay"))?;
        let delay = seconds.parse().ok().and_then(options::duration).filter(|delay| *delay <= longest);
        delay.ok_or_else(|| fail(&format!("expected a number of seconds from 0 to {}", longest.as_secs_f64())))
    }

    fn not_before(&self, time: &str, now: Timestamp) -> Result<Duration, Problem> {
        let fail = |reason: &str| refused(codes::INVALID_DELAY, "X-Async-Not-Before", time, reason);
        let longest = self.delay.ok_or_else(|| fail("this endpoint does not allow a delay"))?;
        let delay = time.parse::<Timestamp>().ok().map(|time| time.since(now)).filter(|delay| *delay <= longest);
        let expected = format!("expected a time as in RFC 3339, at most {} seconds from now", longest.as_secs_f64());
        delay.ok_or_else(|| fail(&expected))
    }

    fn priority(&self, number: &str) -> Result<Priority, Problem> {
        let fail = |reason: &str| refused(codes::INVALID_PRIORITY, "X-Async-Priority", number, reason);
        let allowed = self.priority.as_ref().ok_or_else(|| fail("this endpoint does not allow a priority"))?;
        let priority = number.parse::<u8>().ok().and_then(|number| Priority::try_from(number).ok());
        priority.filter(|priority| allowed.contains(priority)).ok_or_else(|| {
            fail(&format!("expected a whole number from {} to {}", allowed.start().get(), allowed.end().get()))
        })
    }

    /// The headers as parameters of an OpenAPI operation.
    pub(super) fn parameters(&self) -> Vec<Value> {
        let mut parameters = Vec::new();
        let mut add = |name, description: String, schema| {
            parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
        };
        if let Some(longest) = self.delay.map(|longest| longest.as_secs_f64()) {
            let text = "The job starts no earlier than this number of seconds after it was accepted.";
            add("X-Async-Delay", text.to_owned(), json!({ "type": "number", "minimum": 0, "maximum": longest }));
            let text = format!(
                "The job starts no earlier than at this time, at most {longest} seconds from now. Excludes X-Async-Delay."
            );
            add("X-Async-Not-Before", text, json!({ "type": "string", "format": "date-time" }));
        }
        if let Some(allowed) = &self.priority {
            let (lowest, highest) = (allowed.start().get(), allowed.end().get());
            let text = "Waiting jobs of a higher priority start first.".to_owned();
            add("X-Async-Priority", text, json!({ "type": "integer", "minimum": lowest, "maximum": highest }));
        }
        parameters
    }
}

/// The text of a header that occurs at most once.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName, kind: ProblemKind) -> Result<Option<&'a str>, Problem> {
    let value = headers::single(headers, name).map_err(|()| kind.with_detail(format!("{name} must occur once.")))?;
    let read = |value: &'a HeaderValue| {
        let text = value.to_str().map_err(|_| kind.with_detail(format!("{name} must be visible ASCII.")))?;
        Ok(text.trim())
    };
    value.map(read).transpose()
}

fn refused(kind: ProblemKind, header: &str, value: &str, reason: &str) -> Problem {
    kind.with_detail(format!("{header} {value:?}: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(choices: &Choices, pairs: &[(&'static str, &'static str)]) -> Result<Chosen, (String, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        choices
            .read(&map, now)
            .map_err(|problem| (problem.code().to_owned(), problem.detail().unwrap_or_default().to_owned()))
    }

    fn all() -> Choices {
        Choices { delay: Some(Duration::from_secs(60)), priority: Some(Priority::new(2)..=Priority::new(6)) }
    }

    #[test]
    fn allowed_choices_are_read() {
        let delay = |delay| Ok(Chosen { delay: Some(delay), ..Chosen::default() });
        assert_eq!(read(&all(), &[]), Ok(Chosen::default()));
        assert_eq!(read(&all(), &[("x-async-delay", "60")]), delay(Duration::from_secs(60)));
        assert_eq!(read(&all(), &[("x-async-delay", " 0.5 ")]), delay(Duration::from_millis(500)));
        for (time, seconds) in
            [("1970-01-01T01:01:00Z", 60), ("1970-01-01T02:00:30+01:00", 30), ("1960-01-01T00:00:00Z", 0)]
        {
            assert_eq!(read(&all(), &[("x-async-not-before", time)]), delay(Duration::from_secs(seconds)), "{time}");
        }
        let priority = Chosen { priority: Some(Priority::new(6)), ..Chosen::default() };
        assert_eq!(read(&all(), &[("x-async-priority", "6")]), Ok(priority));
    }

    #[test]
    fn bad_choice_names_header_and_value() {
        let fail = |choices: &Choices, pairs: &[(&'static str, &'static str)], code: &str, text: &str| {
            let (found, detail) = read(choices, pairs).expect_err(text);
            assert_eq!((found.as_str(), detail.as_str()), (code, text));
        };
        for bad in ["61", "-1", "soon", "NaN", ""] {
            let text = format!("X-Async-Delay {bad:?}: expected a number of seconds from 0 to 60.");
            fail(&all(), &[("x-async-delay", bad)], "INVALID_DELAY", &text);
        }
        for bad in ["1970-01-01T01:01:01Z", "tomorrow", "1970-01-01"] {
            let text =
                format!("X-Async-Not-Before {bad:?}: expected a time as in RFC 3339, at most 60 seconds from now.");
            fail(&all(), &[("x-async-not-before", bad)], "INVALID_DELAY", &text);
        }
        for bad in ["1", "7", "10", "-1", "high", "4.0"] {
            let text = format!("X-Async-Priority {bad:?}: expected a whole number from 2 to 6.");
            fail(&all(), &[("x-async-priority", bad)], "INVALID_PRIORITY", &text);
        }
        let both = [("x-async-delay", "1"), ("x-async-not-before", "1970-01-01T01:00:01Z")];
        let text = "X-Async-Not-Before \"1970-01-01T01:00:01Z\": expected it without X-Async-Delay.";
        fail(&all(), &both, "INVALID_DELAY", text);
        let twice = [("x-async-priority", "3"), ("x-async-priority", "3")];
        fail(&all(), &twice, "INVALID_PRIORITY", "x-async-priority must occur once.");
    }

    #[test]
    fn choice_that_is_not_allowed_is_refused() {
        for (header, value, code, what) in [
            ("x-async-delay", "0", "INVALID_DELAY", "X-Async-Delay \"0\": this endpoint does not allow a delay."),
            (
                "x-async-not-before",
                "1970-01-01T00:00:00Z",
                "INVALID_DELAY",
                "X-Async-Not-Before \"1970-01-01T00:00:00Z\": this endpoint does not allow a delay.",
            ),
            (
                "x-async-priority",
                "4",
                "INVALID_PRIORITY",
                "X-Async-Priority \"4\": this endpoint does not allow a priority.",
            ),
        ] {
            assert_eq!(read(&Choices::default(), &[(header, value)]), Err((code.to_owned(), what.to_owned())));
        }
    }
}
