//! The indexes of one job type: each job is in exactly one of those by state, and in `accepted`.
//!
//! A job's place is derived from its fields alone, so that taking it out, changing it and putting it back
//! cannot leave it in two.

use std::collections::{BTreeMap, VecDeque};

use super::job::Job;
use crate::{
    job::{JobId, JobName, JobStatus, Priority},
    limits::STATS_MINUTES,
    store::MinuteStats,
    time::Timestamp,
};

/// Score and id, in the order of the state; the value is the job's place in `State::jobs`.
pub(super) type Index = BTreeMap<(u64, JobId), u32>;

/// Order numbers stay below this until the year 2136, so that each priority has its own range of scores.
pub(super) const PRIORITY_SPAN: u64 = 900_000_000_000_000;

/// Milliseconds from the Unix epoch to 2025.
const EPOCH_MILLIS: i64 = 1_735_689_600_000;

/// The least order number of a point in time.
pub(super) fn order_at(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis() - EPOCH_MILLIS).unwrap_or(0) * 256
}

/// Higher priorities first, then by order.
pub(super) fn ready_score(priority: Priority, order: u64) -> u64 {
    u64::from(9 - priority.get()) * PRIORITY_SPAN + order
}

/// A point in time as a score.
pub(super) fn time_score(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(0)
}

pub(super) struct Kind {
    pub(super) name: JobName,
    /// Newest acceptance last.
    pub(super) accepted: Index,
    /// By state, in the order of `JobStatus::ALL`.
    by_status: [Index; 6],
    /// Queued jobs of each priority.
    pub(super) ready_by_priority: [u64; 10],
    /// Scheduled jobs that never started.
    pub(super) never_started: u64,
    /// Counts by minute, the current one last.
    pub(super) slots: VecDeque<MinuteStats>,
}

impl Kind {
    pub(super) fn new(name: JobName) -> Self {
        Self {
            name,
            accepted: Index::new(),
            by_status: Default::default(),
            ready_by_priority: [0; 10],
            never_started: 0,
            slots: VecDeque::new(),
        }
    }

    pub(super) fn of(&self, status: JobStatus) -> &Index {
        &self.by_status[status as usize]
    }

    /// What its queue limit counts.
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

    /// Jobs that go before a queued one: exact for the last of its priority, as a new job is; else counted.
    pub(super) fn ahead(&self, job: &Job, most: u64) -> Option<u64> {
        if job.status != JobStatus::Queued {
            return None;
        }
        let priority = job.terms.priority.get() as usize;
        let higher: u64 = self.ready_by_priority[priority + 1..].iter().sum();
        let ready = self.of(JobStatus::Queued);
        let end = ready_score(job.terms.priority, 0) + PRIORITY_SPAN;
        let is_last = ready.range(key(job)..).nth(1).is_none_or(|((score, _), _)| *score >= end);
        Some(if is_last {
            higher + self.ready_by_priority[priority] - 1
        } else {
            ready.range(..key(job)).take(usize::try_from(most).unwrap_or(usize::MAX)).count() as u64
        })
    }

    /// The counts of this minute.
    pub(super) fn slot(&mut self, now: Timestamp) -> &mut MinuteStats {
        let minute = now.minute();
        if self.slots.back().is_none_or(|slot| slot.minute < minute) {
            self.slots.push_back(MinuteStats::new(minute, self.name.clone()));
            while self.slots.front().is_some_and(|slot| slot.minute <= minute - STATS_MINUTES) {
                self.slots.pop_front();
            }
        }
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }

    /// The count that a job's state keeps besides its index, if it does.
    fn counter(&mut self, job: &Job) -> Option<&mut u64> {
        match job.status {
            JobStatus::Queued => Some(&mut self.ready_by_priority[job.terms.priority.get() as usize]),
            JobStatus::Scheduled if job.attempt == 0 => Some(&mut self.never_started),
            _ => None,
        }
    }
}

fn key(job: &Job) -> (u64, JobId) {
    let score = match job.status {
        JobStatus::Queued => ready_score(job.terms.priority, job.order),
        JobStatus::Scheduled => time_score(job.due.unwrap_or_default()),
        JobStatus::InProgress => time_score(job.started_at.unwrap_or_default()),
        JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => job.order,
    };
    (score, job.id)
}
