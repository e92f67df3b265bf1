//! Failure rates of a window, from the minute statistics of the store.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{JobName, Timestamp, store::Stats};

use crate::stats;

/// The failure rates of a window, returned by [`AsyncEndpoints::failure_rate`](crate::AsyncEndpoints::failure_rate).
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRates {
    /// All types together.
    pub total: FailureRate,
    /// By job type: the types of which jobs completed or failed in the window.
    pub job_types: BTreeMap<String, FailureRate>,
    /// When the statistics were read, by the store's clock. The window ends then.
    pub at: Timestamp,
    /// The counted window, in whole minutes. The current minute counts as one.
    pub window: Duration,
}

/// The jobs of a window that completed or failed. A job counts once, when it becomes terminal: retried attempts and canceled
/// jobs do not count.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureRate {
    /// Jobs that completed.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
}

impl FailureRate {
    /// Number of jobs that completed or failed.
    pub const fn ended(self) -> u64 {
        self.completed + self.failed
    }

    /// Percentage of failed jobs among those that completed or failed, from 0 to 100. 0 without such jobs.
    pub fn percent(self) -> f64 {
        stats::failed_percent(self.completed, self.failed)
    }

    const fn plus(self, other: Self) -> Self {
        Self { completed: self.completed + other.completed, failed: self.failed + other.failed }
    }
}

impl FailureRates {
    /// Derives the rates of a window that ends at the time of the statistics.
    pub(crate) fn of(stats: &Stats, window: Duration) -> Self {
        let since = stats::covering_minute(stats.now, window);
        let by_type = by_type(stats, since);
        Self {
            total: total(&by_type),
            job_types: by_type.into_iter().map(|(name, rate)| (name.to_string(), rate)).collect(),
            at: stats.now,
            window: stats::window_since(stats.now, since),
        }
    }
}

/// The rates of the types with jobs that ended, from a minute on.
pub(crate) fn by_type(stats: &Stats, since: i64) -> BTreeMap<&JobName, FailureRate> {
    let mut rates: BTreeMap<&JobName, FailureRate> = BTreeMap::new();
    for (name, of_minute) in minutes(stats, since) {
        let rate = rates.entry(name).or_default();
        *rate = rate.plus(of_minute);
    }
    rates.retain(|_, rate| rate.ended() > 0);
    rates
}

/// The rate of one type, from a minute on.
pub(crate) fn of_type(stats: &Stats, name: &JobName, since: i64) -> FailureRate {
    let rates = minutes(stats, since).filter(|(of, _)| *of == name).map(|(_, rate)| rate);
    rates.fold(FailureRate::default(), FailureRate::plus)
}

/// Type and rate of each minute bucket from `since` on.
fn minutes(stats: &Stats, since: i64) -> impl Iterator<Item = (&JobName, FailureRate)> {
    stats.minutes.iter().filter(move |minute| minute.minute >= since).map(|minute| {
        let [completed, failed, _] = minute.ended;
        (&minute.name, FailureRate { completed, failed })
    })
}

/// The rate of all types together.
pub(crate) fn total(by_type: &BTreeMap<&JobName, FailureRate>) -> FailureRate {
    by_type.values().copied().fold(FailureRate::default(), FailureRate::plus)
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::store::MinuteStats;
    use async_endpoints_testkit::jobs::name;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn ended(minute: i64, of: &str, ended: [u64; 3]) -> MinuteStats {
        MinuteStats { ended, ..MinuteStats::new(minute, name(of)) }
    }

    #[test]
    fn window_decides_which_minutes_count() {
        let minutes = vec![
            ended(39, "A", [0, 7, 0]),
            ended(40, "A", [6, 2, 5]),
            ended(99, "B", [2, 0, 0]),
            ended(100, "C", [0, 0, 3]),
        ];
        let stats = Stats { now: Timestamp::from_micros(100 * MINUTE), minutes, ..Stats::default() };
        let rates = FailureRates::of(&stats, Duration::from_secs(60 * 60));
        let [a, b] = [(6, 2), (2, 0)].map(|(completed, failed)| FailureRate { completed, failed });
        assert_eq!(
            rates.job_types,
            BTreeMap::from([("A".to_owned(), a), ("B".to_owned(), b)]),
            "C has canceled jobs alone"
        );
        assert_eq!((rates.total, rates.total.percent(), a.percent(), b.percent()), (a.plus(b), 20.0, 25.0, 0.0));
        assert_eq!((rates.at, rates.window), (stats.now, Duration::from_secs(61 * 60)));
        let current = FailureRates::of(&stats, Duration::ZERO);
        assert_eq!((current.total.ended(), current.total.percent(), current.window), (0, 0.0, Duration::from_secs(60)));
    }
}
