//! Slow jobs: an attempt runs, or ran, for longer than its type's `slow_after`.

use std::{cmp::Reverse, collections::HashSet, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord},
    store::{ListFilter, Stats, Store, StoreError, TypeCutoffs},
};

use crate::{
    job_lists::{Judged, collect},
    stats,
};

/// Slow attempts, returned by [`AsyncEndpoints::slow_jobs`](crate::AsyncEndpoints::slow_jobs).
#[derive(Clone, Debug, PartialEq)]
pub struct SlowJobs {
    /// Number of attempts that run for longer than the `slow_after` of their type. At most 1 000 are counted of each type.
    pub running: u64,
    /// Number of attempts that ended after running for so long, from the beginning of the minute of `since` on.
    pub ended: u64,
    /// The jobs of these attempts: running attempts first, the longest running before others, then those that ended last.
    pub jobs: Vec<SlowJob>,
    /// Whether there are no more such jobs: false if the limit or the maximum length of a search was reached.
    pub complete: bool,
    /// When the statistics were read, by the store's clock.
    pub at: Timestamp,
}

/// A job with a slow attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowJob {
    /// The job, without its result.
    pub job: JobView,
    /// Its latest slow attempt.
    pub attempt: AttemptRecord,
    /// How long the attempt ran, or has run until [`SlowJobs::at`].
    pub run_time: Duration,
}

/// Number of slow attempts that run.
pub(crate) fn running(stats: &Stats) -> u64 {
    stats.types.iter().map(|of_type| of_type.slow).sum()
}

/// Number of slow attempts that ended in the minutes from `since` on.
pub(crate) fn ended(stats: &Stats, since: i64) -> u64 {
    stats.minutes.iter().filter(|minute| minute.minute >= since).map(|minute| minute.slow).sum()
}

/// Finds slow attempts that run, or ended at `since` or later, of the types in `cutoffs`.
pub(crate) async fn find(
    store: &dyn Store,
    stats: &Stats,
    cutoffs: &[TypeCutoffs],
    since: Timestamp,
    limit: usize,
) -> Result<SlowJobs, StoreError> {
    // The statistics of earlier minutes are not kept.
    let since = since.max(Timestamp::from_minute(stats::covering_minute(stats.now, Duration::MAX)));
    let (mut jobs, mut complete) = (Vec::new(), true);
    for cutoffs in cutoffs {
        let search = Search { stats, cutoffs, since };
        for status in search.statuses() {
            let filter =
                ListFilter { status: Some(*status), name: Some(cutoffs.name.clone()), ..ListFilter::default() };
            let collected = collect(store, &filter, limit, |job| search.judge(job)).await?;
            jobs.extend(collected.found);
            complete &= collected.complete;
        }
    }
    jobs.sort_by_key(|slow: &SlowJob| (slow.attempt.ended_at.map(Reverse), slow.attempt.started_at, slow.job.id));
    // A job may be in two lists if it changes its state during the search.
    let mut known = HashSet::new();
    jobs.retain(|slow| known.insert(slow.job.id));
    complete &= jobs.len() <= limit;
    jobs.truncate(limit);
    let ended = ended(stats, since.minute());
    Ok(SlowJobs { running: running(stats), ended, jobs, complete, at: stats.now })
}

/// The search for slow jobs of one type.
struct Search<'a> {
    stats: &'a Stats,
    cutoffs: &'a TypeCutoffs,
    since: Timestamp,
}

impl Search<'_> {
    /// The states whose lists may have slow jobs. A job whose slow attempt ended can be in any state, since it may be retried.
    fn statuses(&self) -> &'static [JobStatus] {
        let is_of_type = |name: &JobName| *name == self.cutoffs.name;
        if self.has_ended() {
            &JobStatus::ALL
        } else if self.stats.types.iter().any(|of_type| is_of_type(&of_type.name) && of_type.slow > 0) {
            &[JobStatus::InProgress]
        } else {
            &[]
        }
    }

    /// Whether a slow attempt ended.
    fn has_ended(&self) -> bool {
        let mut minutes = self.stats.minutes.iter().filter(|minute| minute.minute >= self.since.minute());
        minutes.any(|minute| minute.name == self.cutoffs.name && minute.slow > 0)
    }

    fn judge(&self, job: JobView) -> Judged<SlowJob> {
        let slow = |attempt: &AttemptRecord| self.run_time(attempt).map(|run_time| (attempt.clone(), run_time));
        match job.attempts.iter().rev().find_map(slow) {
            Some((attempt, run_time)) => Judged::Found(SlowJob { job, attempt, run_time }),
            // Ended jobs are listed last ended first.
            None if job.completed_at.is_some_and(|ended| ended < self.since) => Judged::Stop,
            None => Judged::Skip,
        }
    }

    /// The run time of a slow attempt that runs or ended at `since` or later. The run time of a lost attempt is not known.
    fn run_time(&self, attempt: &AttemptRecord) -> Option<Duration> {
        let is_lost = attempt.outcome == Some(AttemptOutcome::Lost);
        let is_early = attempt.ended_at.is_some_and(|end| end < self.since);
        let run_time = attempt.ended_at.unwrap_or(self.stats.now).since(attempt.started_at);
        (!is_lost && !is_early && run_time > self.cutoffs.slow_after).then_some(run_time)
    }
}
