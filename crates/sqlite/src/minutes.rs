//! The stored form of minute buckets. Must not know jobs.

use async_endpoints_core::{
    JobName,
    store::{Histogram, MinuteStats},
};
use serde::{Deserialize, Serialize};

/// Lists of numbers, so that a version with more outcomes or histogram buckets can read the records of this one.
#[derive(Serialize, Deserialize)]
struct Record {
    attempts: Vec<u64>,
    ended: Vec<u64>,
    slow: u64,
    queue: Times,
    run: Times,
}

#[derive(Serialize, Deserialize)]
struct Times {
    buckets: Vec<u64>,
    sum: u64,
}

fn times(histogram: &Histogram) -> Times {
    Times { buckets: histogram.buckets.to_vec(), sum: histogram.sum_micros }
}

fn fill(into: &mut [u64], from: &[u64]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
}

fn histogram(times: &Times) -> Histogram {
    let mut histogram = Histogram { sum_micros: times.sum, ..Histogram::default() };
    fill(&mut histogram.buckets, &times.buckets);
    histogram
}

pub(crate) fn encode(minute: &MinuteStats) -> String {
    let record = Record {
        attempts: minute.attempts.to_vec(),
        ended: minute.ended.to_vec(),
        slow: minute.slow,
        queue: times(&minute.queue_time),
        run: times(&minute.processing_time),
    };
    serde_json::to_string(&record).unwrap_or_default()
}

/// Decodes a record. Returns none if it is unreadable: the counts of a minute are not worth failing a call.
pub(crate) fn decode(number: i64, name: JobName, record: &[u8]) -> Option<MinuteStats> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let mut minute = MinuteStats::new(number, name);
    fill(&mut minute.attempts, &record.attempts);
    fill(&mut minute.ended, &record.ended);
    minute.slow = record.slow;
    (minute.queue_time, minute.processing_time) = (histogram(&record.queue), histogram(&record.run));
    Some(minute)
}

fn add((into, from): (&mut u64, u64)) {
    *into = into.saturating_add(from);
}

/// Adds the counts of `from`. Sums saturate, as a stored record may hold any number.
pub(crate) fn merge(into: &mut MinuteStats, from: &MinuteStats) {
    into.attempts.iter_mut().zip(from.attempts).for_each(add);
    into.ended.iter_mut().zip(from.ended).for_each(add);
    add((&mut into.slow, from.slow));
    into.queue_time.merge(&from.queue_time);
    into.processing_time.merge(&from.processing_time);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn minute_is_decoded_and_merged() {
        let name = JobName::new("alpha").unwrap();
        let mut minute = MinuteStats::new(7, name.clone());
        minute.attempts[2] = 3;
        minute.ended[1] = 4;
        minute.slow = 5;
        minute.queue_time.record(Duration::from_millis(80));
        minute.processing_time.record(Duration::from_secs(9_999));
        assert_eq!(decode(7, name.clone(), encode(&minute).as_bytes()), Some(minute.clone()));
        assert_eq!(decode(7, name, b"{"), None);
        let once = minute.clone();
        merge(&mut minute, &once);
        assert_eq!((minute.attempts[2], minute.queue_time.count()), (6, 2));
    }
}
