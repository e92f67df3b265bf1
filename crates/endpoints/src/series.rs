//! Statistics by minute, for charts. They come from the store's minute buckets, so they survive restarts and are the same in
//! every process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
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
    stats_cache::message,
    store_call::within,
};

/// Maximum age of series that are returned without a store call.
const FRESH: Duration = Duration::from_secs(5);
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

/// The series of all types, read from the store at most once in 5 s.
#[derive(Default)]
pub(crate) struct SeriesCache {
    /// The last store call. Locked for its whole duration, so that at most one runs.
    last_call: tokio::sync::Mutex<Option<Call>>,
}

struct Call {
    began: Instant,
    result: Result<Arc<[TypeSeries]>, String>,
}

impl SeriesCache {
    /// Returns the series of a window, or those of one type. Callers that come during a call share its result, and so do callers
    /// within 5 s after it.
    pub(crate) async fn window(
        &self,
        store: &dyn Store,
        window: Duration,
        name: Option<&JobName>,
    ) -> Result<Vec<TypeSeries>, StoreError> {
        let all = self.all(store).await.map_err(StoreError::Unavailable)?;
        let wanted = all.iter().filter(|series| name.is_none_or(|name| series.name == *name));
        Ok(wanted.map(|series| last(series, minutes(window) as usize)).collect())
    }

    async fn all(&self, store: &dyn Store) -> Result<Arc<[TypeSeries]>, String> {
        let mut last_call = self.last_call.lock().await;
        if let Some(call) = last_call.as_ref().filter(|call| call.began.elapsed() < FRESH) {
            return call.result.clone();
        }
        let began = Instant::now();
        let query = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };
        let result = within(store.stats(&query)).await.map(|stats| Arc::from(series(&stats))).map_err(message);
        *last_call = Some(Call { began, result: result.clone() });
        result
    }
}

fn last(series: &TypeSeries, minutes: usize) -> TypeSeries {
    let from = series.points.len().saturating_sub(minutes);
    TypeSeries { name: series.name.clone(), points: series.points[from..].to_vec() }
}

/// The series of everything that the store keeps, by name: of each type that has or had jobs.
fn series(stats: &Stats) -> Vec<TypeSeries> {
    let first = first_minute(stats.now, ALL);
    let minutes = first..=stats.now.minute();
    let stored: BTreeMap<(&JobName, i64), &MinuteStats> =
        stats.minutes.iter().map(|minute| ((&minute.name, minute.minute), minute)).collect();
    let names = stats.types.iter().map(|of_type| &of_type.name);
    let names: BTreeSet<&JobName> = names.chain(stats.minutes.iter().map(|minute| &minute.name)).collect();
    let point = |name, minute| {
        stored.get(&(name, minute)).map_or_else(|| SeriesPoint::empty(minute), |stored| SeriesPoint::of(stored))
    };
    let series = names.into_iter().map(|name| TypeSeries {
        name: name.clone(),
        points: minutes.clone().map(|minute| point(name, minute)).collect(),
    });
    series.collect()
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::MemoryStore;
    use async_endpoints_testkit::FlakyStore;

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
        let series = series(&stats());
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
    async fn callers_share_one_store_call() {
        let store = FlakyStore::new(Arc::new(MemoryStore::new()));
        let cache = SeriesCache::default();
        let window = async || cache.window(&store, Duration::from_secs(60), None).await;
        assert_eq!(window().await.expect("the store answers"), []);
        store.outage(true);
        assert!(window().await.is_ok(), "without another call");
        *cache.last_call.lock().await = None;
        let error = window().await.expect_err("the store is unavailable").to_string();
        store.outage(false);
        assert_eq!(window().await.expect_err("the failed call is shared").to_string(), error);
    }
}
