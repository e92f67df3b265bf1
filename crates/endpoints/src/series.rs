//! Statistics by minute, for charts. They come from the store's minute buckets, so they survive restarts and are the same in
//! every process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_endpoints_core::{
    JobName, StoreError, Timestamp,
    job::AttemptOutcome,
    limits::STATS_MINUTES,
    store::{MinuteStats, Stats, StatsQuery, Store},
};
use serde::Serialize;

use crate::{
    stats::{Percentiles, first_minute, minutes},
    store_call::within,
};

/// The shared statistics have an hour. After less than that, they overlap with the known minutes.
const OVERLAP: Duration = Duration::from_secs(50 * 60);
/// Everything that stores keep.
const ALL: Duration = Duration::from_secs(60 * STATS_MINUTES as u64);

/// The statistics of a job type by minute, returned by [`AsyncEndpoints::series`](crate::AsyncEndpoints::series).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeSeries {
    /// The type's name.
    pub name: JobName,
    /// One point for each minute of the window, oldest first. The last one is the current minute, which is not over.
    pub points: Vec<SeriesPoint>,
}

/// What happened to the jobs of a type in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeriesPoint {
    /// When the minute began, by the store's clock.
    pub at: Timestamp,
    /// Jobs accepted.
    pub arrivals: u64,
    /// Jobs that became Completed.
    pub completed: u64,
    /// Jobs that became Failed.
    pub failed: u64,
    /// Jobs that became Canceled.
    pub canceled: u64,
    /// Attempts that failed and are retried.
    pub retried: u64,
    /// Attempts that were lost with their worker.
    pub lost: u64,
    /// Time from runnable to started, of the attempts that started.
    pub queue_time: Percentiles,
    /// Processing time of the attempts that ended.
    pub processing_time: Percentiles,
}

impl SeriesPoint {
    fn of(minute: &MinuteStats) -> Self {
        let [completed, failed, canceled] = minute.ended;
        Self {
            at: Timestamp::from_minute(minute.minute),
            arrivals: minute.arrivals,
            completed,
            failed,
            canceled,
            retried: minute.attempts(AttemptOutcome::Retried),
            lost: minute.attempts(AttemptOutcome::Lost),
            queue_time: Percentiles::of(&minute.queue_time),
            processing_time: Percentiles::of(&minute.processing_time),
        }
    }

    fn empty(minute: i64) -> Self {
        let (queue_time, processing_time) = (Percentiles::default(), Percentiles::default());
        let at = Timestamp::from_minute(minute);
        Self { at, arrivals: 0, completed: 0, failed: 0, canceled: 0, retried: 0, lost: 0, queue_time, processing_time }
    }
}

/// The minutes that stores keep. The store is read for them once. Then the last hour of the shared statistics replaces what it
/// overlaps: minutes before it do not change any more.
#[derive(Default)]
pub(crate) struct SeriesCache {
    /// Locked during a store call, so that at most one runs.
    known: tokio::sync::Mutex<Option<Known>>,
}

struct Known {
    minutes: BTreeMap<(JobName, i64), MinuteStats>,
    /// The statistics that brought `minutes` up to date, and from which `series` was made.
    stats: Arc<Stats>,
    series: Arc<[TypeSeries]>,
}

impl SeriesCache {
    /// Returns the series of a window, or those of one type, at most 5 s old.
    pub(crate) async fn window(
        &self,
        store: &dyn Store,
        recent: Arc<Stats>,
        window: Duration,
        name: Option<&JobName>,
    ) -> Result<Vec<TypeSeries>, StoreError> {
        let all = self.all(store, recent).await?;
        let wanted = all.iter().filter(|series| name.is_none_or(|name| series.name == *name));
        Ok(wanted.map(|series| last(series, minutes(window) as usize)).collect())
    }

    async fn all(&self, store: &dyn Store, recent: Arc<Stats>) -> Result<Arc<[TypeSeries]>, StoreError> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| Arc::ptr_eq(&known.stats, &recent)) {
            return Ok(known.series.clone());
        }
        let overlaps = |known: &Known| recent.now.since(known.stats.now) < OVERLAP;
        let mut minutes = match known.take().filter(overlaps) {
            Some(known) => known.minutes,
            None => {
                let query = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };
                by_type(&within(store.stats(&query)).await?.minutes)
            }
        };
        let first = first_minute(recent.now, ALL);
        minutes.retain(|(_, minute), _| *minute >= first);
        minutes.extend(by_type(&recent.minutes));
        let series: Arc<[TypeSeries]> = series(&recent, &minutes).into();
        *known = Some(Known { minutes, stats: recent, series: series.clone() });
        Ok(series)
    }
}

fn by_type(minutes: &[MinuteStats]) -> BTreeMap<(JobName, i64), MinuteStats> {
    minutes.iter().map(|minute| ((minute.name.clone(), minute.minute), minute.clone())).collect()
}

fn last(series: &TypeSeries, minutes: usize) -> TypeSeries {
    let from = series.points.len().saturating_sub(minutes);
    TypeSeries { name: series.name.clone(), points: series.points[from..].to_vec() }
}

/// The series of everything that the store keeps, by name: of each type that has or had jobs.
fn series(stats: &Stats, stored: &BTreeMap<(JobName, i64), MinuteStats>) -> Vec<TypeSeries> {
    let minutes = first_minute(stats.now, ALL)..=stats.now.minute();
    let names = stats.types.iter().map(|of_type| &of_type.name);
    let names: BTreeSet<&JobName> = names.chain(stored.keys().map(|(name, _)| name)).collect();
    let point = |name: &JobName, minute| {
        stored.get(&(name.clone(), minute)).map_or_else(|| SeriesPoint::empty(minute), SeriesPoint::of)
    };
    let series = names.into_iter().map(|name| TypeSeries {
        name: name.clone(),
        points: minutes.clone().map(|minute| point(name, minute)).collect(),
    });
    series.collect()
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{Clock as _, MemoryStore};
    use async_endpoints_testkit::{FlakyStore, ManualClock};

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn name(name: &str) -> JobName {
        JobName::new(name).expect("a valid name")
    }

    fn stats() -> Stats {
        let mut minute = MinuteStats::new(999, name("B"));
        minute.arrivals = 7;
        minute.ended = [3, 2, 1];
        minute.attempts[AttemptOutcome::Retried as usize] = 5;
        minute.attempts[AttemptOutcome::Lost as usize] = 4;
        minute.queue_time.record(Duration::from_millis(80));
        let outdated = MinuteStats::new(1000 - STATS_MINUTES, name("A"));
        Stats { now: Timestamp::from_micros(1000 * MINUTE + 1), minutes: vec![outdated, minute], ..Stats::default() }
    }

    #[test]
    fn series_have_a_point_for_each_minute() {
        let stats = stats();
        let series = series(&stats, &by_type(&stats.minutes));
        let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!((names.as_slice(), series[1].points.len()), (&["A", "B"][..], STATS_MINUTES as usize));
        let two = last(&series[1], 2);
        let counts = serde_json::to_value(&two.points[0]).expect("JSON");
        let expected = serde_json::json!({
            "at": "1970-01-01T16:39:00.000000Z",
            "arrivals": 7, "completed": 3, "failed": 2, "canceled": 1, "retried": 5, "lost": 4,
            "queueTime": { "p50": 79.871, "p95": 79.871, "p99": 79.871 },
            "processingTime": { "p50": null, "p95": null, "p99": null },
        });
        assert_eq!(counts, expected);
        assert_eq!(two.points[1], SeriesPoint::empty(1000), "the current minute");
    }

    #[tokio::test]
    async fn minutes_before_the_shared_statistics_are_read_once() {
        let (store, clock) = (FlakyStore::new(Arc::new(MemoryStore::new())), ManualClock::new());
        let cache = SeriesCache::default();
        // The arrivals of each minute that has some, once the last minute of the shared statistics has this number.
        let arrivals = async |last: u64| {
            let mut minute = MinuteStats::new(clock.now().minute(), name("A"));
            minute.arrivals = last;
            let recent = Stats { now: clock.now(), minutes: vec![minute], ..Stats::default() };
            let series = cache.window(&store, Arc::new(recent), ALL, None).await?;
            let points = series.iter().flat_map(|series| &series.points);
            Ok::<_, StoreError>(points.map(|point| point.arrivals).filter(|arrivals| *arrivals > 0).collect::<Vec<_>>())
        };
        assert_eq!(arrivals(3).await.expect("the store answers"), [3]);
        store.outage(true);
        assert_eq!(arrivals(4).await.expect("no call"), [4], "the same minute, later");
        clock.advance(Duration::from_secs(60));
        assert_eq!(arrivals(5).await.expect("no call"), [4, 5]);
        for _ in 0..9 {
            clock.advance(OVERLAP - Duration::from_secs(60));
            arrivals(6).await.expect("no call");
        }
        assert_eq!(arrivals(6).await.expect("no call"), [6; 8], "older minutes are dropped");
        clock.advance(OVERLAP);
        arrivals(7).await.expect_err("the store is read again");
        store.outage(false);
        assert_eq!(arrivals(7).await.expect("the store answers"), [7]);
    }
}
