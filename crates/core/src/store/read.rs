//! Arguments and answers of `get` and `stats`.

use std::time::Duration;

use serde::Serialize;

use super::{Histogram, WorkerInfo};
use crate::{
    job::{AttemptOutcome, Digest, JobName, JobStatus, JobView},
    time::Timestamp,
};

/// The answer to a read of one job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobLookup {
    /// The job.
    Found(Box<JobView>),
    /// The job has expired.
    Gone {
        /// Its owner.
        owner: Option<Digest>,
    },
    /// The id is unknown.
    NotFound,
}

/// Selects the statistics to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsQuery {
    /// The first minute bucket to return; none returns no buckets.
    pub since_minute: Option<i64>,
    /// The ages from which jobs count as slow, overdue and stuck, by type. Other types count none of these.
    pub cutoffs: Vec<TypeCutoffs>,
}

/// The ages from which jobs of a type count as slow, overdue and stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCutoffs {
    /// The type.
    pub name: JobName,
    /// A running attempt older than this is slow.
    pub slow_after: Duration,
    /// A running attempt older than this is overdue: its timeout has passed.
    pub overdue_after: Duration,
    /// A runnable job that waits for longer than this, or a lease that expired longer ago, is stuck.
    pub stuck_after: Duration,
}

/// Statistics over all jobs of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// The store's time.
    pub now: Timestamp,
    /// Every type that has or had jobs, by name.
    pub types: Vec<TypeStats>,
    /// Minute buckets, oldest first.
    pub minutes: Vec<MinuteStats>,
    /// Live workers.
    pub workers: Vec<LiveWorker>,
    /// Number of quarantined entries: stored data that could not be decoded.
    pub quarantined: u64,
    /// Number of jobs so far whose indexes differed from them and were repaired. Another program writes to the store, or part
    /// of the data was lost.
    pub repaired: u64,
}

/// Counts and ages of one type. The last four counts may stop at [`AHEAD_COUNTED`](crate::limits::AHEAD_COUNTED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStats {
    /// The type.
    pub name: JobName,
    /// Number of jobs in each state, in the order of [`JobStatus::ALL`].
    pub counts: [u64; 6],
    /// Number of Scheduled jobs that never started. A queue limit counts these and the Queued jobs.
    pub never_started: u64,
    /// Since when the oldest runnable job waits; due Scheduled jobs are included.
    pub oldest_runnable: Option<Timestamp>,
    /// When the longest running attempt started.
    pub oldest_running: Option<Timestamp>,
    /// Attempts running for longer than `slow_after`.
    pub slow: u64,
    /// Attempts running for longer than `overdue_after`.
    pub overdue: u64,
    /// Jobs runnable for longer than `stuck_after`. They are stuck if no live worker claims the type.
    pub stale: u64,
    /// Leases that expired longer ago than `stuck_after` and were not reclaimed.
    pub unrecovered: u64,
}

impl TypeStats {
    /// Number of jobs in a state.
    pub const fn count(&self, status: JobStatus) -> u64 {
        self.counts[status as usize]
    }

    /// The number that a queue limit counts.
    pub const fn waiting(&self) -> u64 {
        self.count(JobStatus::Queued) + self.never_started
    }
}

/// A live worker: its last heartbeat has not expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveWorker {
    /// The worker, as of its last heartbeat.
    #[serde(flatten)]
    pub info: WorkerInfo,
    /// When its last heartbeat was recorded, by the store's clock.
    pub last_heartbeat_at: Timestamp,
}

impl LiveWorker {
    /// Whether the worker has a handler for a type.
    pub fn runs(&self, name: &JobName) -> bool {
        self.info.types.iter().any(|capacity| capacity.name == *name)
    }
}

/// The minute bucket of one type: the events of one minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteStats {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// The type.
    pub name: JobName,
    /// Jobs accepted: submitted, or made by an operator's retry.
    pub arrivals: u64,
    /// Attempts that ended, by outcome, in the order of [`AttemptOutcome::ALL`].
    pub attempts: [u64; 6],
    /// Jobs that became Completed, Failed, Canceled.
    pub ended: [u64; 3],
    /// Attempts that ran for longer than `slow_after`.
    pub slow: u64,
    /// Time from runnable to started, of started attempts.
    pub queue_time: Histogram,
    /// Run time of attempts that their worker settled. The run time of lost attempts is unknown.
    pub processing_time: Histogram,
}

impl MinuteStats {
    /// Number of attempts with this outcome.
    pub const fn attempts(&self, outcome: AttemptOutcome) -> u64 {
        self.attempts[outcome as usize]
    }

    /// Counts a job that entered a terminal state. Ignores other states.
    pub fn count_ended(&mut self, status: JobStatus) {
        if let Some(place) = (status as usize).checked_sub(JobStatus::Completed as usize) {
            self.ended[place] += 1;
        }
    }

    /// An empty bucket.
    pub fn new(minute: i64, name: JobName) -> Self {
        Self {
            minute,
            name,
            arrivals: 0,
            attempts: [0; 6],
            ended: [0; 3],
            slow: 0,
            queue_time: Histogram::default(),
            processing_time: Histogram::default(),
        }
    }
}
