//! What the fleet did and has, in figures: read from the store, so they survive restarts and every process tells the same.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    limits::STATS_MINUTES,
    store::{Histogram, MinuteStats, Stats, TypeStats},
};
use serde::{Serialize, Serializer};

/// The window of `/metrics/jobs`.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// Figures of all jobs, and of each job type, from [`AsyncEndpoints::stats`](crate::AsyncEndpoints::stats); serialized, the
/// document of `/metrics/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStats {
    /// Of all types together.
    #[serde(flatten)]
    pub total: Figures,
    /// By job type: those that are declared here, and all others that the store has.
    pub job_types: BTreeMap<String, Figures>,
    /// When they were taken, by the store's clock.
    pub at: Timestamp,
    /// How far back rates and times reach: whole minutes, of which the last has just begun.
    #[serde(rename = "windowSeconds", serialize_with = "seconds")]
    pub window: Duration,
}

/// Figures of some jobs: counts of now, and rates and times of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Jobs Queued now.
    pub queued_jobs: u64,
    /// Jobs Scheduled now.
    pub scheduled_jobs: u64,
    /// Jobs InProgress now.
    pub processing_jobs: u64,
    /// Completed jobs that the store still has.
    pub completed_jobs: u64,
    /// Failed jobs that the store still has.
    pub failed_jobs: u64,
    /// Canceled jobs that the store still has.
    pub canceled_jobs: u64,
    /// Mean time of the attempts that ended in the window, in milliseconds; none if none ended.
    #[serde(serialize_with = "millis")]
    pub avg_processing_time: Option<Duration>,
    /// Failed jobs in percent of those that completed or failed in the window; 0 if none did.
    pub error_rate: f64,
    /// From runnable to started, of attempts that started in the window.
    pub queue_time: Percentiles,
    /// Of attempts that ended in the window.
    pub processing_time: Percentiles,
    /// How long the runnable job that waits longest has waited, in milliseconds; none if none waits.
    #[serde(serialize_with = "millis")]
    pub oldest_queued_age: Option<Duration>,
}

/// Times that half, 95 % and 99 % of what was measured do not exceed, interpolated within the store's buckets; none if
/// nothing was measured. In milliseconds when serialized.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half.
    #[serde(serialize_with = "millis")]
    pub p50: Option<Duration>,
    /// 95 %.
    #[serde(serialize_with = "millis")]
    pub p95: Option<Duration>,
    /// 99 %.
    #[serde(serialize_with = "millis")]
    pub p99: Option<Duration>,
}

impl Percentiles {
    fn of(times: &Histogram) -> Self {
        Self { p50: times.quantile(0.50), p95: times.quantile(0.95), p99: times.quantile(0.99) }
    }
}

/// The whole minutes of a window, of those that stores keep.
fn minutes(window: Duration) -> u32 {
    window.as_secs().div_ceil(60).clamp(1, STATS_MINUTES as u64) as u32
}

/// The first minute of a window: with the one that has just begun, it has as many as the window.
pub(crate) fn first_minute(now: Timestamp, window: Duration) -> i64 {
    now.minute() - i64::from(minutes(window) - 1)
}

impl JobStats {
    /// What statistics say of a window; `declared` types are told also if the store knows nothing of them.
    pub(crate) fn of<'a>(stats: &Stats, window: Duration, declared: impl Iterator<Item = &'a JobName>) -> Self {
        let since = first_minute(stats.now, window);
        let mut sums: BTreeMap<&str, Sum> = declared.map(|name| (name.as_str(), Sum::default())).collect();
        for of_type in &stats.types {
            sums.entry(of_type.name.as_str()).or_default().now(of_type);
        }
        for slot in stats.minutes.iter().filter(|slot| slot.minute >= since) {
            sums.entry(slot.name.as_str()).or_default().minute(slot);
        }
        let mut total = Sum::default();
        sums.values().for_each(|sum| total.merge(sum));
        Self {
            total: total.figures(stats.now),
            job_types: sums.into_iter().map(|(name, sum)| (name.to_owned(), sum.figures(stats.now))).collect(),
            at: stats.now,
            window: Duration::from_secs(60) * minutes(window),
        }
    }
}

/// What figures are made of; sums of these are exact, sums of figures would not be.
#[derive(Default)]
struct Sum {
    counts: [u64; 6],
    ended: [u64; 3],
    queue_time: Histogram,
    processing_time: Histogram,
    oldest_runnable: Option<Timestamp>,
}

impl Sum {
    fn now(&mut self, of_type: &TypeStats) {
        add(&mut self.counts, &of_type.counts);
        self.oldest_runnable = earlier(self.oldest_runnable, of_type.oldest_runnable);
    }

    fn minute(&mut self, slot: &MinuteStats) {
        add(&mut self.ended, &slot.ended);
        self.queue_time.merge(&slot.queue_time);
        self.processing_time.merge(&slot.processing_time);
    }

    fn merge(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts);
        add(&mut self.ended, &other.ended);
        self.queue_time.merge(&other.queue_time);
        self.processing_time.merge(&other.processing_time);
        self.oldest_runnable = earlier(self.oldest_runnable, other.oldest_runnable);
    }

    fn figures(&self, now: Timestamp) -> Figures {
        let count = |status: JobStatus| self.counts[status as usize];
        let [completed, failed, _] = self.ended;
        let attempts = self.processing_time.count();
        Figures {
            queued_jobs: count(JobStatus::Queued),
            scheduled_jobs: count(JobStatus::Scheduled),
            processing_jobs: count(JobStatus::InProgress),
            completed_jobs: count(JobStatus::Completed),
            failed_jobs: count(JobStatus::Failed),
            canceled_jobs: count(JobStatus::Canceled),
            avg_processing_time: self.processing_time.sum_micros.checked_div(attempts).map(Duration::from_micros),
            error_rate: if failed == 0 { 0.0 } else { 100.0 * failed as f64 / (completed + failed) as f64 },
            queue_time: Percentiles::of(&self.queue_time),
            processing_time: Percentiles::of(&self.processing_time),
            oldest_queued_age: self.oldest_runnable.map(|since| now.since(since)),
        }
    }
}

fn add<const N: usize>(to: &mut [u64; N], more: &[u64; N]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

#[expect(clippy::ref_option, reason = "what serde calls it with")]
fn millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64() * 1e3).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_secs_f64().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn slot(minute: i64, name: &str, completed: u64, failed: u64, millis: u64) -> MinuteStats {
        let mut slot = MinuteStats::new(minute, JobName::new(name).expect("a name"));
        slot.ended = [completed, failed, 0];
        for _ in 0..completed + failed {
            slot.processing_time.record(Duration::from_millis(millis));
        }
        slot
    }

    #[test]
    fn figures_are_of_the_window_and_add_up() {
        let stats = Stats {
            now: Timestamp::from_micros(100 * MINUTE + 1),
            minutes: vec![slot(40, "A", 9, 9, 9), slot(41, "A", 3, 0, 80), slot(100, "B", 0, 1, 80)],
            ..Stats::default()
        };
        let declared = JobName::new("C").expect("a name");
        let figures = JobStats::of(&stats, HOUR, [&declared].into_iter());
        assert_eq!(figures.job_types.keys().collect::<Vec<_>>(), ["A", "B", "C"]);
        assert_eq!((figures.job_types["A"].error_rate, figures.job_types["B"].error_rate), (0.0, 100.0));
        assert_eq!(figures.total.error_rate, 25.0);
        assert_eq!(figures.total.avg_processing_time, Some(Duration::from_millis(80)));
        assert_eq!(figures.job_types["C"], Figures::default());
        let document = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(document["avgProcessingTime"], json!(80.0));
        assert_eq!(document["queueTime"], json!({ "p50": null, "p95": null, "p99": null }));
        assert_eq!(document["processingTime"]["p50"], json!(75.0));
        assert_eq!((&document["queuedJobs"], &document["oldestQueuedAge"]), (&json!(0), &json!(null)));
    }

    #[test]
    fn a_window_has_as_many_minutes_as_it_is_long() {
        let now = Timestamp::from_micros(100 * MINUTE + 59);
        assert_eq!(first_minute(now, HOUR), 41);
        assert_eq!(first_minute(now, Duration::from_secs(60)), 100);
        assert_eq!(first_minute(now, Duration::ZERO), 100);
        assert_eq!(first_minute(now, Duration::from_secs(61)), 99);
        // None is longer than what is kept, and each says how long it is.
        assert_eq!(first_minute(now, Duration::MAX), 101 - STATS_MINUTES);
        let stats = Stats { now, ..Stats::default() };
        let told = |window| JobStats::of(&stats, window, std::iter::empty()).window;
        assert_eq!(told(Duration::from_secs(61)), Duration::from_secs(120));
        assert_eq!(told(24 * HOUR), 6 * HOUR);
    }
}
