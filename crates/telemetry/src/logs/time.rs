//! Timestamps of log lines.

use std::{
    cell::Cell,
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
/// Length of `2026-11-28T22:55:01`.
const LENGTH: usize = 19;

thread_local! {
    /// The last second and its text. Lines within one second share it.
    static SECOND: Cell<(i64, [u8; LENGTH])> = const { Cell::new((i64::MIN, [b'0'; LENGTH])) };
}

/// Appends the current time as RFC 3339 in UTC with microseconds.
pub(super) fn push_now(out: &mut String) {
    let (second, micros) = now();
    let (known, mut text) = SECOND.get();
    if known != second {
        text = format(second);
        SECOND.set((second, text));
    }
    out.extend(text.iter().copied().map(char::from));
    let _infallible = write!(out, ".{micros:06}Z");
}

/// The current UTC day.
pub(super) fn today() -> Date {
    day(now().0.div_euclid(SECONDS_PER_DAY))
}

/// The UTC day with this number of days after 1970-01-01.
pub(super) fn day(days: i64) -> Date {
    timestamp(days.saturating_mul(SECONDS_PER_DAY)).to_zoned(TimeZone::UTC).date()
}

/// Seconds since the Unix epoch, and microseconds. A clock before it reads as the epoch.
fn now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_micros())
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

fn format(second: i64) -> [u8; LENGTH] {
    let text = timestamp(second).to_string();
    let text = text.as_bytes().first_chunk().copied();
    text.unwrap_or([b'0'; LENGTH])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_rfc_3339_with_microseconds() {
        let mut text = String::new();
        push_now(&mut text);
        assert_eq!((text.len(), &text[19..20], &text[26..]), (27, ".", "Z"));
        let read: Timestamp = text.parse().expect("RFC 3339");
        assert!(read.duration_until(Timestamp::now()).as_secs() < 30);
        assert_eq!(format(951_782_399), *b"2000-02-28T23:59:59");
    }

    #[test]
    fn day_changes_at_midnight_utc() {
        assert_eq!([day(0), day(11_016)].map(|day| day.to_string()), ["1970-01-01", "2000-02-29"]);
    }
}
