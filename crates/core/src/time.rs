//! Points in time, and the clock of a store. Must not know jobs.

use std::{
    fmt,
    ops::{Add, Range},
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time: microseconds since the Unix epoch, written as RFC 3339 in UTC.
///
/// ```
/// # use async_endpoints_core::Timestamp;
/// let t = Timestamp::from_micros(1_735_689_600_250_000);
/// assert_eq!(t.to_string(), "2025-01-01T00:00:00.250000Z");
/// assert_eq!("2025-01-01T00:00:00.25Z".parse(), Ok(t));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Minutes since the Unix epoch, rounded down: the number of a minute bucket.
    pub const fn minute(self) -> i64 {
        self.0.div_euclid(60_000_000)
    }

    /// The beginning of a minute, counted as [`minute`](Self::minute) does.
    pub const fn from_minute(minute: i64) -> Self {
        Self(minute.saturating_mul(60_000_000))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The point `ago` before this one, saturating.
    pub fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(micros(ago)))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(micros(later)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        time.duration_since(UNIX_EPOCH)
            .map_or_else(|before| Self(-micros(before.duration())), |after| Self(micros(after)))
    }
}

impl Timestamp {
    /// The text, digit by digit: jiff's formatter takes five times as long, and each answer with a job has several times.
    fn text(self) -> Text {
        let mut text = Text(*b"9999-12-31T23:59:59.999999Z");
        // Other years than 0 to 9999 keep the text above. No stored time has one, and a reader must not fail.
        if let Ok(time) = jiff::Timestamp::from_microsecond(self.0)
            && let time = jiff::tz::Offset::UTC.to_datetime(time)
            && let Ok(year) = u32::try_from(time.year())
        {
            text.set(0..4, year);
            let parts = [time.month(), time.day(), time.hour(), time.minute(), time.second()];
            for (start, part) in [5, 8, 11, 14, 17].into_iter().zip(parts) {
                text.set(start..start + 2, part.unsigned_abs().into());
            }
            text.set(20..26, time.subsec_nanosecond().unsigned_abs() / 1_000);
        }
        text
    }
}

/// The text of a [`Timestamp`].
struct Text([u8; 27]);

impl Text {
    fn set(&mut self, digits: Range<usize>, mut number: u32) {
        for digit in self.0[digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("digits and separators are ASCII"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: jiff::Timestamp =
            text.parse().map_err(|e| format!("invalid time {text:?}: expected RFC 3339: {e}"))?;
        Ok(Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The clock of a store that lives in this process. A store on a database server uses the server's clock.
pub trait Clock: Send + Sync + 'static {
    /// The time now. A step moves leases and delays by as much. The memory store needs a time that never goes backwards.
    fn now(&self) -> Timestamp;
}

/// The wall clock at its creation, advanced by the monotonic clock. A wall clock that is set while the process runs
/// neither ends a lease early nor starts a job twice.
#[derive(Debug)]
pub struct SystemClock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { wall: SystemTime::now().into(), monotonic: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.wall + self.monotonic.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_microseconds_both_ways() {
        for micros in [0, 1, 999_999, 1_763_800_000_123_456, -1] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        let leap_day = Timestamp::from_micros(1_709_251_199_000_001);
        assert_eq!(leap_day.to_string(), "2024-02-29T23:59:59.000001Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn arithmetic_stays_in_range() {
        let late = Timestamp::from_micros(i64::MAX) + Duration::MAX;
        assert_eq!(late.as_micros(), i64::MAX);
        assert!(late.to_string().starts_with("9999"));
        assert_eq!(Timestamp::default().since(late), Duration::ZERO);
    }
}
