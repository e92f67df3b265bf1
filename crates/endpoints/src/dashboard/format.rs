//! Times, numbers and states as HTML.

use std::time::Duration;

use maud::{Markup, html};

use super::view::View;
use crate::{JobId, JobStatus, Timestamp};

/// How the script shows a time. Without scripts it stays a date and time in UTC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// `12:04:31`, with the date if it is another day.
    Time,
    /// `2 min ago`, or `in 5 s`.
    Ago,
    /// `2 min`: how long something has lasted.
    Age,
}

/// A point in time.
pub(super) fn time(at: Timestamp, shown: As) -> Markup {
    let whole = at.to_string();
    let (date, clock) = (whole.get(..10).unwrap_or_default(), whole.get(11..19).unwrap_or_default());
    let shown = match shown {
        As::Time => "time",
        As::Ago => "ago",
        As::Age => "age",
    };
    html! { time datetime=(whole) data-as=(shown) { (date) " " (clock) } }
}

/// A point in time that may be unknown.
pub(super) fn time_or_dash(at: Option<Timestamp>, shown: As) -> Markup {
    html! { @match at { Some(at) => (time(at, shown)), None => (dash()) } }
}

/// In place of a value that does not exist.
pub(super) fn dash() -> Markup {
    html! { span.none { "–" } }
}

/// A form's field for a time. The script shows and sends times of the page's zone; without it, the field is in UTC.
pub(super) fn time_field(label: &str, name: &str, value: Option<Timestamp>) -> Markup {
    let whole = value.map(|at| at.to_string());
    let minute = whole.as_ref().and_then(|whole| whole.get(..16));
    html! {
        label {
            (label) noscript { " (UTC)" }
            input type="datetime-local" name=(name) value=[minute] data-at=[&whole] autocomplete="off";
        }
    }
}

/// The times that [`read_time`] takes.
pub(super) const A_TIME: &str = "a time, such as 2026-11-29T12:00:00Z or, in UTC, 2026-11-29T12:00";

/// The value of a [`time_field`], or a time as in JSON.
pub(super) fn read_time(text: &str) -> Option<Timestamp> {
    match text.len() {
        16 => format!("{text}:00Z").parse().ok(),
        19 => format!("{text}Z").parse().ok(),
        _ => text.parse().ok(),
    }
}

/// A duration with two or three significant digits: `0.4 ms`, `12 ms`, `1.2 s`, `2 min 11 s`, `3 h 4 min`, `2 d 3 h`.
pub(super) fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.as_secs_f64() * 1e3);
    let two = |first: u64, unit: &str, second: u64, small: &str| match second {
        0 => format!("{first} {unit}"),
        _ => format!("{first} {unit} {second} {small}"),
    };
    match seconds {
        0 if millis < 10.0 => format!("{millis:.1} ms"),
        0 => format!("{millis:.0} ms"),
        1..10 => format!("{:.1} s", millis / 1e3),
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

pub(super) fn duration_or_dash(value: Option<Duration>) -> Markup {
    html! { @match value { Some(value) => (duration(value)), None => (dash()) } }
}

/// A number with groups of three digits.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number with at most two decimals.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A percentage with one decimal below ten.
pub(super) fn percent(value: f64) -> String {
    if value > 0.0 && value < 10.0 { format!("{value:.1} %") } else { format!("{value:.0} %") }
}

/// A state as a word with a mark of its own shape.
pub(super) fn status(status: JobStatus) -> Markup {
    mark(status.as_str())
}

/// A state that is not one of a job. The mark has a color and shape by its name.
pub(super) fn mark(name: &str) -> Markup {
    html! { span class={ "status " (name.to_lowercase()) } { (name) } }
}

/// A part of the page, such as a wide table, that scrolls by itself. The keyboard can scroll it.
pub(super) fn scroll(label: &str, content: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="group" aria-label=(label) { (content) } }
}

/// A link to a job. The id is shortened to its beginning and end.
pub(super) fn job_link(view: &View, id: JobId) -> Markup {
    let text = id.to_string();
    html! { a.id href=(view.link(&format!("/jobs/{text}"))) title=(text) { (short(&text)) } }
}

pub(super) fn short(id: &str) -> String {
    match (id.get(..8), id.get(id.len().saturating_sub(6)..)) {
        (Some(start), Some(end)) => format!("{start}…{end}"),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_few_digits() {
        for (millis, expected) in [
            (0.4, "0.4 ms"),
            (12.4, "12 ms"),
            (1_234.0, "1.2 s"),
            (84_000.0, "1 min 24 s"),
            (120_000.0, "2 min"),
            (3_840_000.0, "1 h 4 min"),
            (183_600_000.0, "2 d 3 h"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(millis / 1e3)), expected);
        }
    }

    #[test]
    fn digits_are_grouped() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1_204, "1\u{202f}204"), (12_345_678, "12\u{202f}345\u{202f}678")]
        {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn time_is_machine_readable_and_utc() {
        let html = time(Timestamp::from_micros(1_000_000), As::Ago).0;
        assert_eq!(html, r#"<time datetime="1970-01-01T00:00:01.000000Z" data-as="ago">1970-01-01 00:00:01</time>"#);
    }
}
