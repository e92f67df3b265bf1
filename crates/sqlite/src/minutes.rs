//! Minute buckets: the writer's cache, and their stored form. Must not know jobs.

use std::collections::{HashMap, hash_map::Entry};

use async_endpoints_core::{
    JobName,
    limits::STATS_MINUTES,
    store::{Histogram, MinuteStats},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The largest count that is read, so that later counts and sums over all minutes do not overflow.
const MOST: u64 = 1 << 56;

/// The buckets of one minute, by type: the file's values plus the changes of the open transaction.
#[derive(Default)]
pub(crate) struct Minutes {
    number: i64,
    cached: HashMap<i64, Cached>,
}

struct Cached {
    stats: MinuteStats,
    stored: bool,
    changed: bool,
}

impl Minutes {
    /// The bucket of a minute and type, for a change. Writes the buckets of the minute before.
    pub(crate) fn change(
        &mut self,
        conn: &Connection,
        number: i64,
        type_id: i64,
        name: JobName,
    ) -> Result<&mut MinuteStats, Failure> {
        if self.number != number {
            self.flush(conn)?;
            self.cached.clear();
            self.number = number;
        }
        let cached = match self.cached.entry(type_id) {
            Entry::Occupied(cached) => cached.into_mut(),
            Entry::Vacant(place) => place.insert(load(conn, number, type_id, name)?),
        };
        cached.changed = true;
        Ok(&mut cached.stats)
    }

    /// Writes the changed buckets.
    pub(crate) fn flush(&mut self, conn: &Connection) -> Result<(), Failure> {
        for (type_id, cached) in self.cached.iter_mut().filter(|(_, cached)| cached.changed) {
            conn.prepare_cached("INSERT OR REPLACE INTO minutes (minute, type_id, record) VALUES (?1, ?2, ?3)")?
                .execute(params![self.number, type_id, encode(&cached.stats)])?;
            if !cached.stored {
                delete_others(conn, self.number)?;
            }
            (cached.stored, cached.changed) = (true, false);
        }
        Ok(())
    }
}

/// Reads a bucket. A missing or unreadable one is empty.
fn load(conn: &Connection, number: i64, type_id: i64, name: JobName) -> Result<Cached, Failure> {
    let mut find =
        conn.prepare_cached("SELECT CAST(record AS BLOB) FROM minutes WHERE minute = ?1 AND type_id = ?2")?;
    let record: Option<Vec<u8>> = find.query_row([number, type_id], |row| row.get(0)).optional()?;
    let found = record.as_ref().and_then(|record| decode(number, name.clone(), record));
    let stats = found.unwrap_or_else(|| MinuteStats::new(number, name));
    Ok(Cached { stats, stored: record.is_some(), changed: false })
}

/// Deletes old buckets, and buckets that a clock wrote while it was ahead.
fn delete_others(conn: &Connection, number: i64) -> Result<(), Failure> {
    conn.prepare_cached("DELETE FROM minutes WHERE minute <= ?1")?.execute([number - STATS_MINUTES])?;
    conn.prepare_cached("DELETE FROM minutes WHERE minute > ?1")?.execute([number])?;
    Ok(())
}

/// Lists of numbers, so that a version with more outcomes can read the records of this one.
#[derive(Serialize, Deserialize)]
struct Record {
    arrivals: u64,
    attempts: Vec<u64>,
    ended: Vec<u64>,
    slow: u64,
    queue: Times,
    run: Times,
}

#[derive(Serialize, Deserialize)]
struct Times {
    sum: u64,
    /// For each histogram bucket: its distance from the bucket before, which is a short number, and its count.
    buckets: Vec<u64>,
}

fn times(histogram: &Histogram) -> Times {
    let mut before = 0;
    let bucket = |(bucket, count): &(u16, u64)| {
        let distance = bucket - std::mem::replace(&mut before, *bucket);
        [distance.into(), *count]
    };
    Times { sum: histogram.sum_micros, buckets: histogram.buckets().iter().flat_map(bucket).collect() }
}

fn histogram(times: &Times) -> Histogram {
    let (mut histogram, mut bucket) = (Histogram::default(), 0_u64);
    for pair in times.buckets.chunks_exact(2) {
        bucket = bucket.saturating_add(pair[0]);
        histogram.add(u16::try_from(bucket).unwrap_or(u16::MAX), pair[1]);
    }
    histogram.sum_micros = times.sum;
    histogram
}

fn fill(into: &mut [u64], from: &[u64]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into = MOST.min(*from));
}

fn encode(minute: &MinuteStats) -> String {
    let record = Record {
        arrivals: minute.arrivals,
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
    (minute.arrivals, minute.slow) = (record.arrivals.min(MOST), record.slow.min(MOST));
    (minute.queue_time, minute.processing_time) = (histogram(&record.queue), histogram(&record.run));
    Some(minute)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn decoded_minute_equals_the_encoded() {
        let name = JobName::new("alpha").unwrap();
        let mut minute = MinuteStats::new(7, name.clone());
        (minute.arrivals, minute.attempts[2], minute.ended[1], minute.slow) = (2, 3, 4, 5);
        for millis in [0, 80, 80, 9_999] {
            minute.queue_time.record(Duration::from_millis(millis));
            minute.processing_time.record(Duration::from_millis(7 * millis + 1));
        }
        assert_eq!(decode(7, name.clone(), encode(&minute).as_bytes()), Some(minute));
        assert_eq!(decode(7, name, b"{"), None);
    }
}
