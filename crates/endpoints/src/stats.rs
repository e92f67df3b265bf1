//! Job statistics, derived from the store's counts. They survive restarts and are the same in every process.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    limits::STATS_MINUTES,
    store::{Histogram, MinuteStats, Stats, TypeStats},
};
use serde::{Serialize, Serializer};

/// The window of `/metrics/jobs`.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// Statistics of all jobs and of each job type, returned by [`AsyncEndpoints::stats`](crate::AsyncEndpoints::stats).
/// Serializes as the document of `/metrics/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStats {
    /// All types together.
    #[serde(flatten)]
    pub total: Figures,
    /// By job type: the types declared in this process and all others in the store.
    pub job_types: BTreeMap<String, Figures>,
    /// When the statistics were read, by the store's clock.
    pub at: Timestamp,
    /// The window of rates and times, in whole minutes. The current minute counts as one.
    #[serde(rename = "windowSeconds", serialize_with = "seconds")]
    pub window: Duration,
}

/// Statistics of a set of jobs: current counts, and rates and times of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Queued jobs.
    pub queued_jobs: u64,
    /// Scheduled jobs.
    pub scheduled_jobs: u64,
    /// Jobs in progress.
    pub processing_jobs: u64,
    /// Completed jobs within their retention.
    pub completed_jobs: u64,
    /// Failed jobs within their retention.
    pub failed_jobs: u64,
    /// Canceled jobs within their retention.
    pub canceled_jobs: u64,
    /// Mean processing time of the attempts that ended in the window. Serialized in milliseconds, or null without attempts.
    #[serde(serialize_with = "millis")]
    pub avg_processing_time: Option<Duration>,
    /// Percentage of failed jobs among those that completed or failed in the window. 0 without such jobs.
    pub error_rate: f64,
    /// Time from runnable to started, of the attempts that started in the window.
    pub queue_time: Percentiles,
    /// Processing time of the attempts that ended in the window.
    pub processing_time: Percentiles,
    /// Waiting time of the runnable job that waits longest. Serialized in milliseconds, or null without waiting jobs.
    #[serde(serialize_with = "millis")]
    pub oldest_queued_age: Option<Duration>,
}

/// Percentiles, each within 5 % of the true one. `None` without measurements. Serialized in milliseconds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    #[serde(serialize_with = "millis")]
    pub p50: Option<Duration>,
    /// The 95th percentile.
    #[serde(serialize_with = "millis")]
    pub p95: Option<Duration>,
    /// The 99th percentile.
    #[serde(serialize_with = "millis")]
    pub p99: Option<Duration>,
}

impl Percentiles {
    pub(crate) fn of(times: &Histogram) -> Self {
        Self { p50: times.quantile(0.50), p95: times.quantile(0.95), p99: times.quantile(0.99) }
    }
}

/// The number of minutes in a window, at most as many as stores keep.
pub(crate) fn minutes(window: Duration) -> u32 {
    window.as_secs().div_ceil(60).clamp(1, STATS_MINUTES as u64) as u32
}

/// The first minute of a window that ends with the current minute, which counts as a whole one.
pub(crate) fn first_minute(now: Timestamp, window: Duration) -> i64 {
    now.minute() - i64::from(minutes(window) - 1)
}

/// The minute in which a window begins that ends now. The minutes from there cover the window and at most a minute more.
pub(crate) fn covering_minute(now: Timestamp, window: Duration) -> i64 {
    now.before(window).minute().max(now.minute() - STATS_MINUTES + 1)
}

/// The window from a minute on, in whole minutes. The current minute counts as one.
pub(crate) fn window_since(now: Timestamp, since: i64) -> Duration {
    Duration::from_secs(60 * u64::try_from(now.minute() - since + 1).unwrap_or(0))
}

/// Percentage of failed jobs among those that completed or failed. 0 without such jobs.
pub(crate) fn failed_percent(completed: u64, failed: u64) -> f64 {
    if failed == 0 { 0.0 } else { 100.0 * failed as f64 / (completed + failed) as f64 }
}

impl JobStats {
    /// Derives the statistics of a window. Types in `declared` are included even if the store has no jobs of them.
    pub(crate) fn of<'a>(stats: &Stats, window: Duration, declared: impl Iterator<Item = &'a JobName>) -> Self {
        Self::since_minute(stats, first_minute(stats.now, window), declared)
    }

    /// Derives the statistics of the window from a minute on. Types in `declared` are included even if the store has no jobs
    /// of them.
    pub(crate) fn since_minute<'a>(stats: &Stats, since: i64, declared: impl Iterator<Item = &'a JobName>) -> Self {
        let mut sums: BTreeMap<&str, Sum> = declared.map(|name| (name.as_str(), Sum::default())).collect();
        for of_type in &stats.types {
            sums.entry(of_type.name.as_str()).or_default().now(of_type);
        }
        for minute in stats.minutes.iter().filter(|minute| minute.minute >= since) {
            sums.entry(minute.name.as_str()).or_default().minute(minute);
        }
        let mut total = Sum::default();
        sums.values().for_each(|sum| total.merge(sum));
        Self {
            total: total.figures(stats.now),
            job_types: sums.into_iter().map(|(name, sum)| (name.to_owned(), sum.figures(stats.now))).collect(),
            at: stats.now,
            window: window_since(stats.now, since),
        }
    }
}

/// Sums that [`Figures`] are derived from. Unlike figures, sums can be added.
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

    fn minute(&mut self, minute: &MinuteStats) {
        add(&mut self.ended, &minute.ended);
        self.queue_time.merge(&minute.queue_time);
        self.processing_time.merge(&minute.processing_time);
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
            error_rate: failed_percent(completed, failed),
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

#[expect(clippy::ref_option, reason = "the signature that serde requires")]
pub(crate) fn millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_nanos() as f64 / 1e6).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_secs_f64().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn minute_stats(minute: i64, name: &str, completed: u64, failed: u64, millis: u64) -> MinuteStats {
        let mut stats = MinuteStats::new(minute, JobName::new(name).expect("a valid name"));
        stats.ended = [completed, failed, 0];
        for _ in 0..completed + failed {
            stats.processing_time.record(Duration::from_millis(millis));
        }
        stats
    }

    #[test]
    fn figures_cover_window_and_add_up() {
        let stats = Stats {
            now: Timestamp::from_micros(100 * MINUTE + 1),
            minutes: vec![
                minute_stats(40, "A", 9, 9, 9),
                minute_stats(41, "A", 3, 0, 80),
                minute_stats(100, "B", 0, 1, 80),
            ],
            ..Stats::default()
        };
        let declared = JobName::new("C").expect("a valid name");
        let figures = JobStats::of(&stats, HOUR, [&declared].into_iter());
        assert_eq!(figures.job_types.keys().collect::<Vec<_>>(), ["A", "B", "C"]);
        assert_eq!((figures.job_types["A"].error_rate, figures.job_types["B"].error_rate), (0.0, 100.0));
        assert_eq!(figures.total.error_rate, 25.0);
        assert_eq!(figures.total.avg_processing_time, Some(Duration::from_millis(80)));
        assert_eq!(figures.job_types["C"], Figures::default());
        let document = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(document["avgProcessingTime"], json!(80.0));
        assert_eq!(document["queueTime"], json!({ "p50": null, "p95": null, "p99": null }));
        assert_eq!(document["processingTime"]["p50"], json!(79.871), "80 ms, within 5 %");
        let times = Percentiles { p50: Some(Duration::from_micros(1_671_167)), ..Percentiles::default() };
        assert_eq!(serde_json::to_value(times).expect("JSON")["p50"], json!(1671.167), "no digits of a rounding error");
        assert_eq!((&document["queuedJobs"], &document["oldestQueuedAge"]), (&json!(0), &json!(null)));
    }

    #[test]
    fn window_is_rounded_up_to_minutes() {
        let now = Timestamp::from_micros(100 * MINUTE + 59);
        assert_eq!(first_minute(now, HOUR), 41);
        assert_eq!(first_minute(now, Duration::from_secs(60)), 100);
        assert_eq!(first_minute(now, Duration::ZERO), 100);
        assert_eq!(first_minute(now, Duration::from_secs(61)), 99);
        assert_eq!(first_minute(now, Duration::MAX), 101 - STATS_MINUTES);
        let stats = Stats { now, ..Stats::default() };
        let actual = |window| JobStats::of(&stats, window, std::iter::empty()).window;
        assert_eq!(actual(Duration::from_secs(61)), Duration::from_secs(120));
        assert_eq!(actual(24 * HOUR), 6 * HOUR);
    }

    #[test]
    fn window_until_now_is_covered() {
        let first = |now, window| covering_minute(Timestamp::from_micros(now), window);
        assert_eq!(first(100 * MINUTE, HOUR), 40, "at the start of a minute, the window begins with a minute");
        assert_eq!(first(100 * MINUTE - 1, HOUR), 39);
        assert_eq!(first(101 * MINUTE - 1, HOUR), 40);
        assert_eq!(first(100 * MINUTE, Duration::ZERO), 100);
        assert_eq!(first(1000 * MINUTE, Duration::MAX), 1001 - STATS_MINUTES);
        let stats = Stats { now: Timestamp::from_micros(100 * MINUTE), ..Stats::default() };
        assert_eq!(JobStats::since_minute(&stats, 40, std::iter::empty()).window, Duration::from_secs(61 * 60));
    }
}
