//! Stuck jobs: nothing moves them, although something should have.

use async_endpoints_core::{
    JobStatus, JobView, Timestamp,
    store::{ListFilter, LiveWorker, Stats, Store, StoreError, TypeCutoffs, TypeStats},
};

use crate::job_lists::{Judged, collect};

/// A stuck job, returned by [`AsyncEndpoints::stuck_jobs`](crate::AsyncEndpoints::stuck_jobs).
#[derive(Clone, Debug, PartialEq)]
pub struct StuckJob {
    /// The job, without its result.
    pub job: JobView,
    /// Why it is stuck.
    pub reason: StuckReason,
    /// Since when its attempt runs, or since when it is runnable.
    pub since: Timestamp,
}

/// Why a job is stuck.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StuckReason {
    /// Its lease expired longer ago than [`Options::stuck_after`](crate::Options::stuck_after), and no sweep recovered it.
    LeaseExpired,
    /// It is runnable for longer than [`Options::stuck_after`](crate::Options::stuck_after), and no live worker has a
    /// handler for its type. Jobs of a paused type are not stuck.
    NoWorker,
    /// Its attempt runs for longer than its timeout and the grace in which the handler is stopped.
    Overdue,
}

/// Number of stuck jobs of one type.
pub(crate) fn count(of_type: &TypeStats, workers: &[LiveWorker]) -> u64 {
    let is_taken = workers.iter().any(|worker| worker.runs(&of_type.name));
    let untaken = if is_taken { 0 } else { of_type.stale };
    // A running job can be overdue and unrecovered at once.
    of_type.overdue.max(of_type.unrecovered) + untaken
}

/// Number of stuck jobs of all types.
pub(crate) fn total(stats: &Stats) -> u64 {
    stats.types.iter().map(|of_type| count(of_type, &stats.workers)).sum()
}

/// Lists the stuck jobs of all types in `cutoffs`, the longest stuck first.
pub(crate) async fn list(
    store: &dyn Store,
    stats: &Stats,
    cutoffs: &[TypeCutoffs],
    limit: usize,
) -> Result<Vec<StuckJob>, StoreError> {
    let mut stuck = Vec::new();
    for of_type in stats.types.iter().filter(|of_type| count(of_type, &stats.workers) > 0) {
        let Some(cutoffs) = cutoffs.iter().find(|cutoffs| cutoffs.name == of_type.name) else { continue };
        let search = Search { store, stats, of_type, cutoffs, limit };
        stuck.extend(search.running().await?);
        if of_type.stale > 0 && !stats.workers.iter().any(|worker| worker.runs(&of_type.name)) {
            stuck.extend(search.waiting(JobStatus::Queued).await?);
            stuck.extend(search.waiting(JobStatus::Scheduled).await?);
        }
    }
    stuck.sort_by_key(|stuck| (stuck.since, stuck.job.id));
    stuck.truncate(limit);
    Ok(stuck)
}

/// The search for stuck jobs of one type.
struct Search<'a> {
    store: &'a dyn Store,
    stats: &'a Stats,
    of_type: &'a TypeStats,
    cutoffs: &'a TypeCutoffs,
    limit: usize,
}

impl Search<'_> {
    /// Running jobs, longest running first.
    async fn running(&self) -> Result<Vec<StuckJob>, StoreError> {
        let overdue = self.stats.now.before(self.cutoffs.overdue_after);
        // A lease that expired so long ago was claimed before that.
        let expired = self.stats.now.before(self.cutoffs.stuck_after);
        let mut unrecovered = self.of_type.unrecovered;
        self.collect(JobStatus::InProgress, |job| {
            let since = job.started_at.unwrap_or(self.stats.now);
            if since >= overdue.max(expired) {
                return Judged::Stop;
            }
            let is_expired = unrecovered > 0 && since < expired && !self.is_held(&job);
            unrecovered -= u64::from(is_expired);
            match is_expired {
                true => Judged::Found(StuckJob { job, reason: StuckReason::LeaseExpired, since }),
                false if since < overdue => Judged::Found(StuckJob { job, reason: StuckReason::Overdue, since }),
                false => Judged::Skip,
            }
        })
        .await
    }

    /// Queued jobs, next to run first, or Scheduled ones, soonest due first. Due jobs stay Scheduled until the next claim.
    async fn waiting(&self, status: JobStatus) -> Result<Vec<StuckJob>, StoreError> {
        let stale = self.stats.now.before(self.cutoffs.stuck_after);
        self.collect(status, |job| {
            let since = runnable_since(&job);
            match status {
                _ if since < stale => Judged::Found(StuckJob { job, reason: StuckReason::NoWorker, since }),
                // Ordered by priority first.
                JobStatus::Queued => Judged::Skip,
                _ => Judged::Stop,
            }
        })
        .await
    }

    /// Whether a live worker runs the job.
    fn is_held(&self, job: &JobView) -> bool {
        let worker = job.attempts.last().and_then(|attempt| attempt.worker);
        self.stats.workers.iter().any(|live| Some(live.info.id) == worker)
    }

    async fn collect(
        &self,
        status: JobStatus,
        judge: impl FnMut(JobView) -> Judged<StuckJob>,
    ) -> Result<Vec<StuckJob>, StoreError> {
        let filter =
            ListFilter { status: Some(status), name: Some(self.of_type.name.clone()), ..ListFilter::default() };
        Ok(collect(self.store, &filter, self.limit, judge).await?.found)
    }
}

/// Since when a waiting job is runnable: its acceptance, its due time, or the end of its last attempt.
fn runnable_since(job: &JobView) -> Timestamp {
    let ended = job.attempts.last().and_then(|attempt| attempt.ended_at);
    [job.scheduled_at, ended].into_iter().flatten().fold(job.created_at, Timestamp::max)
}
