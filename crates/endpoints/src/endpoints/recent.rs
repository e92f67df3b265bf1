//! What the pages of the dashboard show: the answers of the public functions, from the shared statistics. However many pages are
//! open, this process reads the statistics once in five seconds, or once a second for pages of jobs that wait or run.

use std::{collections::BTreeSet, time::Duration};

use async_endpoints_core::{JobName, JobView, StoreError, Timestamp, store::LiveWorker};

use super::AsyncEndpoints;
use crate::{
    capacity::{is_silent, without_silent},
    explain::{Explained, Viewer},
    failures::{self, Failures},
    fleet::{Waiting, by_start},
    types::{self, TypeState},
};

/// Maximum age of the statistics that explain a job that waits or runs: its worker may have just started.
const ACTIVE: Duration = Duration::from_secs(1);
/// Maximum age of the statistics that explain an ended job.
const ENDED: Duration = Duration::from_secs(5);

/// The workers of a fleet, the first started first.
pub(crate) struct RecentWorkers {
    pub(crate) live: Vec<LiveWorker>,
    /// Without a recent heartbeat: dead, frozen or cut off.
    pub(crate) silent: Vec<LiveWorker>,
}

impl RecentWorkers {
    /// Each worker, and whether it is silent.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&LiveWorker, bool)> {
        self.live.iter().map(|worker| (worker, false)).chain(self.silent.iter().map(|worker| (worker, true)))
    }
}

impl AsyncEndpoints {
    /// Returns what [`types`](Self::types) does. Pauses and limits are those of this moment.
    pub(crate) async fn recent_types(&self) -> Result<Vec<TypeState>, StoreError> {
        let controls = self.0.controls.read().await?;
        let stats = self.0.stats_cache.refresh().await?;
        let stats = without_silent((*stats).clone(), self.options().lease);
        Ok(types::states(&stats, &controls, &self.declared_types()))
    }

    /// Returns what [`workers`](Self::workers) does: first the workers with a recent heartbeat, then the silent ones.
    pub(crate) async fn recent_workers(&self) -> Result<RecentWorkers, StoreError> {
        let stats = self.0.stats_cache.at_most(ACTIVE).await?;
        let is_silent = |worker: &LiveWorker| is_silent(worker.last_heartbeat_at, stats.now, self.options().lease);
        let (silent, live) = by_start(stats.workers.clone()).iter().cloned().partition(is_silent);
        Ok(RecentWorkers { live, silent })
    }

    /// Returns the store's time, at most five seconds ago.
    pub(crate) async fn recent_time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.0.stats_cache.refresh().await?.now)
    }

    /// Returns what [`waiting`](Self::waiting) does, for each of the jobs.
    pub(crate) async fn recent_waiting(&self, jobs: &[JobView]) -> Vec<Option<Waiting>> {
        let stats = self.0.stats_cache.refresh().await.ok();
        let workers = stats.as_ref().map(|stats| (stats.now, stats.workers.as_slice()));
        let mut waiting = Vec::with_capacity(jobs.len());
        for job in jobs {
            waiting.push(self.waiting_for(job, workers).await);
        }
        waiting
    }

    /// Returns what [`explain`](Self::explain) does, for a job that was just read.
    pub(crate) async fn recent_explain(&self, job: &JobView) -> Result<Explained, StoreError> {
        let age = if job.status.is_terminal() { ENDED } else { ACTIVE };
        let stats = self.0.stats_cache.at_most(age).await?;
        self.explain_by(job, &stats, &stats.minutes, Viewer::Operator).await
    }

    /// Returns what [`failures`](Self::failures) does, of the jobs that failed since then, in about this time.
    pub(crate) async fn recent_failures(&self, since: Timestamp, time: Duration) -> Result<Failures, StoreError> {
        failures::find(&*self.0.store, since, time).await
    }

    /// Returns the names of the job types that are declared in this process or have jobs.
    pub(crate) async fn type_names(&self) -> Result<BTreeSet<JobName>, StoreError> {
        let stats = self.0.stats_cache.refresh().await?;
        let stored = stats.types.iter().map(|of_type| &of_type.name);
        Ok(self.0.types.values().chain(stored).cloned().collect())
    }
}
