//! Minute slots as they are stored. Must not know jobs.

use async_endpoints_core::{
    JobName,
    store::{Histogram, MinuteStats},
};
use serde::{Deserialize, Serialize};

/// Lists of numbers, so that a version with more outcomes or buckets reads those of this one.
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

pub(crate) fn encode(slot: &MinuteStats) -> String {
    let record = Record {
        attempts: slot.attempts.to_vec(),
        ended: slot.ended.to_vec(),
        slow: slot.slow,
        queue: times(&slot.queue_time),
        run: times(&slot.processing_time),
    };
    serde_json::to_string(&record).unwrap_or_default()
}

/// None if it cannot be read: a minute's counts are not worth refusing anything for.
pub(crate) fn decode(minute: i64, name: JobName, record: &[u8]) -> Option<MinuteStats> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let mut slot = MinuteStats::new(minute, name);
    fill(&mut slot.attempts, &record.attempts);
    fill(&mut slot.ended, &record.ended);
    slot.slow = record.slow;
    (slot.queue_time, slot.processing_time) = (histogram(&record.queue), histogram(&record.run));
    Some(slot)
}

fn add((into, from): (&mut u64, u64)) {
    *into = into.saturating_add(from);
}

/// Adds another's counts, whatever it says.
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
    fn a_slot_comes_back_and_adds_up() {
        let name = JobName::new("alpha").unwrap();
        let mut slot = MinuteStats::new(7, name.clone());
        slot.attempts[2] = 3;
        slot.ended[1] = 4;
        slot.slow = 5;
        slot.queue_time.record(Duration::from_millis(80));
        slot.processing_time.record(Duration::from_secs(9_999));
        assert_eq!(decode(7, name.clone(), encode(&slot).as_bytes()), Some(slot.clone()));
        assert_eq!(decode(7, name, b"{"), None);
        let once = slot.clone();
        merge(&mut slot, &once);
        assert_eq!((slot.attempts[2], slot.queue_time.count()), (6, 2));
    }
}
