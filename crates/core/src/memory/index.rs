//! The indexes of one job type: each job is in exactly one of those by state, and in `accepted`.
//!
//! A job's key is derived from its fields alone, so that removing, changing and adding it cannot leave it in two.

use std::collections::{BTreeMap, VecDeque};

use super::job::Job;
use crate::{
    job::{JobId, JobName, JobStatus, Priority},
    limits::STATS_MINUTES,
    store::MinuteStats,
    time::Timestamp,
};

/// A sorted index: from score and id to the job's place in `State::jobs`.
pub(super) type Index = BTreeMap<(u64, JobId), u32>;

/// Larger than every order number until the year 2136, so that each priority has its own range of scores.
pub(super) const PRIORITY_SPAN: u64 = 900_000_000_000_000;

/// Milliseconds from the Unix epoch to 2025.
const EPOCH_MILLIS: i64 = 1_735_689_600_000;

/// The smallest order number of a point in time.
pub(super) fn order_at(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis() - EPOCH_MILLIS).unwrap_or(0) * 256
}

/// The score of a Queued job: higher priorities first, then by order number.
pub(super) fn queued_score(priority: Priority, order: u64) -> u64 {
    u64::from(9 - priority.get()) * PRIORITY_SPAN + order
}

/// The score of a point in time.
pub(super) fn time_score(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(0)
}

pub(super) struct TypeIndex {
    pub(super) name: JobName,
    /// All jobs by acceptance, newest last.
    pub(super) accepted: Index,
    /// One index for each state, in the order of `JobStatus::ALL`.
    by_status: [Index; 6],
    /// Number of Queued jobs of each priority.
    pub(super) queued_by_priority: [u64; 10],
    /// Number of Scheduled jobs that never started.
    pub(super) never_started: u64,
    /// Minute buckets, the present one last.
    pub(super) minutes: VecDeque<MinuteStats>,
}

impl TypeIndex {
    pub(super) fn new(name: JobName) -> Self {
        Self {
            name,
            accepted: Index::new(),
            by_status: Default::default(),
            queued_by_priority: [0; 10],
            never_started: 0,
            minutes: VecDeque::new(),
        }
    }

    pub(super) fn of(&self, status: JobStatus) -> &Index {
        &self.by_status[status as usize]
    }

    /// The number that a queue limit counts.
    pub(super) fn waiting(&self) -> u64 {
        self.of(JobStatus::Queued).len() as u64 + self.never_started
    }

    pub(super) fn add(&mut self, job: &Job, place: u32) {
        self.by_status[job.status as usize].insert(key(job), place);
        if let Some(count) = self.counter(job) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, job: &Job) {
        self.by_status[job.status as usize].remove(&key(job));
        if let Some(count) = self.counter(job) {
            *count -= 1;
        }
    }

    /// Number of jobs that start before a Queued one. A new job is the last of its priority, which needs no counting; other
    /// jobs are counted up to `most`.
    pub(super) fn ahead(&self, job: &Job, most: u64) -> Option<u64> {
        if job.status != JobStatus::Queued {
            return None;
        }
        let priority = job.terms.priority.get() as usize;
        let higher: u64 = self.queued_by_priority[priority + 1..].iter().sum();
        let ready = self.of(JobStatus::Queued);
        let end = queued_score(job.terms.priority, 0) + PRIORITY_SPAN;
        let is_last = ready.range(key(job)..).nth(1).is_none_or(|((score, _), _)| *score >= end);
        Some(if is_last {
            higher + self.queued_by_priority[priority] - 1
        } else {
            ready.range(..key(job)).take(usize::try_from(most).unwrap_or(usize::MAX)).count() as u64
        })
    }

    /// The bucket of the present minute.
    pub(super) fn minute(&mut self, now: Timestamp) -> &mut MinuteStats {
        let minute = now.minute();
        if self.minutes.back().is_none_or(|last| last.minute < minute) {
            self.minutes.push_back(MinuteStats::new(minute, self.name.clone()));
            while self.minutes.front().is_some_and(|first| first.minute <= minute - STATS_MINUTES) {
                self.minutes.pop_front();
            }
        }
        let last = self.minutes.len() - 1;
        &mut self.minutes[last]
    }

    /// The counter that includes a job, if one does.
    fn counter(&mut self, job: &Job) -> Option<&mut u64> {
        match job.status {
            JobStatus::Queued => Some(&mut self.queued_by_priority[job.terms.priority.get() as usize]),
            JobStatus::Scheduled if job.attempt == 0 => Some(&mut self.never_started),
            _ => None,
        }
    }
}

fn key(job: &Job) -> (u64, JobId) {
    let score = match job.status {
        JobStatus::Queued => queued_score(job.terms.priority, job.order),
        JobStatus::Scheduled => time_score(job.due.unwrap_or_default()),
        JobStatus::InProgress => time_score(job.started_at.unwrap_or_default()),
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => job.order,
    };
    (score, job.id)
}
