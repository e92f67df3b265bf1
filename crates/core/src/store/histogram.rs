//! Histogram of durations, from which percentiles are computed.

use std::time::Duration;

/// Buckets for each power of two.
const PER_OCTAVE: u64 = 16;

/// The bucket of the largest number of microseconds.
const LAST: u16 = 975;

/// A histogram of durations in whole microseconds. Buckets without durations take no space.
///
/// Each number below 16 µs has a bucket of its own. From there, 16 buckets of equal width divide each power of two, so that a
/// bucket is at most 6.25 % wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Numbers of buckets with the number of durations in them, sorted.
    buckets: Vec<(u16, u64)>,
    /// The sum of all durations in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = micros(duration);
        self.add(bucket(micros), 1);
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Adds durations to a bucket, but not to the sum. For stores, which save buckets and sum.
    pub fn add(&mut self, bucket: u16, count: u64) {
        let bucket = bucket.min(LAST);
        match self.buckets.binary_search_by_key(&bucket, |(number, _)| *number) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    /// Numbers of buckets with the number of durations in them, sorted.
    pub fn buckets(&self) -> &[(u16, u64)] {
        &self.buckets
    }

    /// The number of the bucket that counts a duration.
    pub fn bucket_of(duration: Duration) -> u16 {
        bucket(micros(duration))
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        other.buckets.iter().for_each(|(bucket, count)| self.add(*bucket, *count));
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// The `q`-quantile, `q` from 0 to 1: the middle of the bucket that holds the duration at rank `q` × count. It is within
    /// 3.2 % of that duration. None for an empty histogram.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = q.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0;
        let holds_rank = |(_, count): &&(u16, u64)| {
            below = count.saturating_add(below);
            below as f64 >= rank
        };
        self.buckets.iter().find(holds_rank).map(|(bucket, _)| Duration::from_micros(middle(*bucket)))
    }
}

/// The whole microseconds of a duration.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The number of the bucket that counts `micros`.
fn bucket(micros: u64) -> u16 {
    let octave = (micros / PER_OCTAVE).checked_ilog2().map_or(0, u64::from);
    (octave * PER_OCTAVE + (micros >> octave)) as u16
}

/// The middle of a bucket in microseconds.
fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let octave = (bucket / PER_OCTAVE).saturating_sub(1);
    let (first, width) = ((bucket - octave * PER_OCTAVE) << octave, 1 << octave);
    first + (width - 1) / 2
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MILLISECOND: u64 = 1_000;
    const TWELVE_HOURS: u64 = 12 * 3_600_000_000;

    /// Whether a duration is within a part of the true one.
    fn is_within(part: f64, found: Duration, truth: u64) -> bool {
        (found.as_micros() as f64 - truth as f64).abs() <= part * truth as f64
    }

    /// A duration from 1 ms to 12 h, each power of ten as likely as the others.
    fn spread() -> impl Strategy<Value = u64> {
        (0.0..=1.0_f64).prop_map(|part| (MILLISECOND as f64 * (TWELVE_HOURS as f64 / 1e3).powf(part)) as u64)
    }

    proptest! {
        #[test]
        fn quantile_is_within_5_percent(
            mut samples in vec(prop_oneof![spread(), Just(1_000_000), Just(1 << 20)], 1..300),
            other in 0.0..=1.0_f64,
        ) {
            let mut times = Histogram::default();
            samples.iter().for_each(|micros| times.record(Duration::from_micros(*micros)));
            samples.sort_unstable();
            for q in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0, other] {
                let rank = (q * samples.len() as f64).ceil() as usize;
                let (found, truth) = (times.quantile(q).expect("samples"), samples[rank.max(1) - 1]);
                prop_assert!(is_within(0.05, found, truth), "{q}: {found:?} instead of {truth} µs");
            }
        }
    }

    #[test]
    fn middle_is_near_both_ends_of_each_bucket() {
        assert!((0..16).all(|micros| middle(bucket(micros)) == micros), "buckets of one number");
        for (octave, part) in (0..60).flat_map(|octave| (16..32).map(move |part| (octave, part))) {
            let (first, number) = (part << octave, bucket(part << octave));
            let last = first + ((1 << octave) - 1);
            assert_eq!((bucket(first - 1) + 1, bucket(last)), (number, number), "{first} µs");
            let found = Duration::from_micros(middle(number));
            assert!(
                is_within(0.032, found, first) && is_within(0.032, found, last),
                "{found:?} for {first} to {last} µs"
            );
        }
        assert_eq!((bucket(u64::MAX), Histogram::bucket_of(Duration::MAX)), (LAST, LAST));
    }

    #[test]
    fn merged_histogram_holds_both() {
        let (mut one, mut other, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        assert_eq!(one.quantile(0.5), None);
        for millis in [7, 80, 80, 3_600_000] {
            one.record(Duration::from_millis(millis));
            other.record(Duration::from_millis(millis / 7));
            both.record(Duration::from_millis(millis));
            both.record(Duration::from_millis(millis / 7));
        }
        one.merge(&other);
        assert_eq!((&one, one.count()), (&both, 8));
        assert!(one.buckets().is_sorted(), "{one:?}");
    }

    #[test]
    fn stored_numbers_of_any_size_are_added() {
        let mut times = Histogram::default();
        times.add(u16::MAX, u64::MAX);
        times.add(3, u64::MAX);
        times.merge(&times.clone());
        assert_eq!((times.count(), times.buckets()), (u64::MAX, &[(3, u64::MAX), (LAST, u64::MAX)][..]));
        assert!(times.quantile(1.0) >= times.quantile(0.5));
    }
}
