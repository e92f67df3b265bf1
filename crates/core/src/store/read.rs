//! Arguments and answers of the calls that read.

use std::time::Duration;

use super::{TypeCapacity, WorkerId, WorkerSlots};
use crate::{
    job::{AttemptOutcome, Digest, JobId, JobName, JobStatus, JobView},
    time::Timestamp,
};

/// What is known of an id.
#[derive(Clone, Debug, PartialEq)]
pub enum JobLookup {
    /// The job.
    Found(Box<JobView>),
    /// There was one; its retention is over.
    Gone {
        /// Whose it was.
        owner: Option<Digest>,
    },
    /// Nothing.
    NotFound,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// In this state; none lists all, newest accepted first. With a state, in its own order: next to run,
    /// soonest due, longest running, last ended.
    pub status: Option<JobStatus>,
    /// Of this type; none lists all types.
    pub name: Option<JobName>,
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// How many jobs; never more than [`PAGE_JOBS`](crate::limits::PAGE_JOBS) are given.
    pub limit: u32,
}

/// The last entry of a list that a page consumed. Opaque: only the store that made it reads its score.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// When the first page was read. A job that entered its state later is left out: it may have been
    /// on an earlier page, at its place then.
    pub since: Timestamp,
    /// Its place in the list's order.
    pub score: u64,
    /// Its id, which decides between equal scores.
    pub id: JobId,
}

/// A part of a list. It may be shorter than asked for while `next` is set.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPage {
    /// Without results.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// What to count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsQuery {
    /// Return slots from this minute on; none returns no slots.
    pub since_minute: Option<i64>,
    /// What counts as slow, overdue and stuck, by type; types not named here count none of these.
    pub cutoffs: Vec<TypeCutoffs>,
}

/// What counts as slow, overdue and stuck for a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCutoffs {
    /// The type.
    pub name: JobName,
    /// A running attempt older than this is slow.
    pub slow_after: Duration,
    /// A running attempt older than this should have been stopped.
    pub overdue_after: Duration,
    /// A runnable job, or a lease past its expiry, that nothing moved for this long is stuck.
    pub stuck_after: Duration,
}

/// What a store knows about all its jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// The store's time.
    pub now: Timestamp,
    /// Each type that has or had jobs, by name.
    pub types: Vec<TypeStats>,
    /// Counts by minute, oldest first.
    pub minutes: Vec<MinuteStats>,
    /// Workers alive.
    pub workers: Vec<LiveWorker>,
    /// Entries put aside because they could not be read.
    pub quarantined: u64,
    /// Jobs whose indexes disagreed with them and were mended, so far: something else writes to the store, or lost a part.
    pub repaired: u64,
}

/// One type's jobs. The last four are counted up to [`AHEAD_COUNTED`](crate::limits::AHEAD_COUNTED) and may stop there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStats {
    /// The type.
    pub name: JobName,
    /// Jobs in each state, in the order of [`JobStatus::ALL`].
    pub counts: [u64; 6],
    /// Scheduled jobs that never started: with the Queued ones, what a queue limit counts.
    pub never_started: u64,
    /// Since when the oldest runnable job waits, a due Scheduled one included.
    pub oldest_runnable: Option<Timestamp>,
    /// When the longest running attempt started.
    pub oldest_running: Option<Timestamp>,
    /// Running longer than `slow_after`.
    pub slow: u64,
    /// Running longer than `overdue_after`.
    pub overdue: u64,
    /// Runnable for longer than `stuck_after`; stuck if no live worker takes the type.
    pub stale: u64,
    /// Leases expired for longer than `stuck_after`, recovered by nobody.
    pub unrecovered: u64,
}

impl TypeStats {
    /// Jobs in a state.
    pub const fn count(&self, status: JobStatus) -> u64 {
        self.counts[status as usize]
    }

    /// What a queue limit counts.
    pub const fn waiting(&self) -> u64 {
        self.count(JobStatus::Queued) + self.never_started
    }
}

/// A worker alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveWorker {
    /// Which.
    pub worker: WorkerId,
    /// The types it takes.
    pub types: Vec<TypeCapacity>,
    /// What its slots do.
    pub slots: WorkerSlots,
    /// When it last said so.
    pub at: Timestamp,
}

/// Upper bounds of the time buckets that slots count in, in seconds; one more bucket has no bound.
pub const BOUNDS: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Durations counted in the buckets of [`BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each bucket, not cumulated.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Their sum in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum_micros = self.sum_micros.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.saturating_add(theirs);
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// The duration that a share `q` (0 to 1) of those counted does not exceed, by linear interpolation within
    /// its bucket, as Prometheus does it; the last bound for what lies beyond. None if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bucket, upper) in self.buckets.iter().zip(BOUNDS) {
            let here = *bucket as f64;
            if here > 0.0 && below + here >= rank {
                return Some(Duration::from_secs_f64(lower + (upper - lower) * (rank - below).max(0.0) / here));
            }
            (below, lower) = (below + here, upper);
        }
        Some(Duration::from_secs_f64(BOUNDS[BOUNDS.len() - 1]))
    }
}

/// What happened to one type in one minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteStats {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// The type.
    pub name: JobName,
    /// Attempts that ended, by outcome, in the order of [`AttemptOutcome::ALL`].
    pub attempts: [u64; 6],
    /// Jobs that became Completed, Failed, Canceled.
    pub ended: [u64; 3],
    /// Attempts that ended slow.
    pub slow: u64,
    /// From runnable to started, of attempts that started.
    pub queue_time: Histogram,
    /// Of attempts that their worker ended; how long a lost one ran, nobody knows.
    pub processing_time: Histogram,
}

impl MinuteStats {
    /// Attempts that ended like this.
    pub const fn attempts(&self, outcome: AttemptOutcome) -> u64 {
        self.attempts[outcome as usize]
    }

    /// Counts a job that came into a terminal state; any other state is ignored.
    pub fn count_ended(&mut self, status: JobStatus) {
        if let Some(place) = (status as usize).checked_sub(JobStatus::Completed as usize) {
            self.ended[place] += 1;
        }
    }

    /// An empty slot.
    pub fn new(minute: i64, name: JobName) -> Self {
        Self {
            minute,
            name,
            attempts: [0; 6],
            ended: [0; 3],
            slow: 0,
            queue_time: Histogram::default(),
            processing_time: Histogram::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_within_their_bucket() {
        let mut times = Histogram::default();
        assert_eq!(times.quantile(0.5), None);
        for _ in 0..10 {
            times.record(Duration::from_millis(80)); // bucket 50 to 100 ms
        }
        assert_eq!(times.quantile(0.5), Some(Duration::from_millis(75)));
        times.record(Duration::from_secs(10_000));
        assert_eq!(times.quantile(1.0), Some(Duration::from_secs(3600)));
        let mut twice = times.clone();
        twice.merge(&times);
        assert_eq!((twice.count(), twice.sum_micros), (22, 2 * times.sum_micros));
    }
}
