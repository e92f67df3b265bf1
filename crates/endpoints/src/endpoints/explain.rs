//! Explains jobs: reads the facts of [`explain`](crate::explain).

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobView, StoreError, Timestamp,
    limits::PAGE_JOBS,
    store::{JobLookup, ListFilter, MinuteStats, Page, Stats, StatsQuery},
};

use super::AsyncEndpoints;
use crate::{
    explain::{Explained, Facts, Viewer, expected_wait, explain},
    job_type::timeout_of,
    store_call::within,
    types::Controls,
};

impl AsyncEndpoints {
    /// Explains a job: why it waits and when it is expected to start, where it runs, or why it ended as it did. `None` if the
    /// job is unknown or expired.
    ///
    /// Says only what stored facts say: the job, the statistics, the heartbeats of workers and the pause of its type. Takes at
    /// most three store calls, and reads at most 200 other jobs.
    ///
    /// # Errors
    ///
    /// The store is unavailable, does not answer within 4.5 s, or cannot read the job.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, JobType, MemoryStore, ReasonCode};
    /// # const RESIZE: JobType<(), ()> = JobType::new("Resize");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// # let id = endpoints.submit(RESIZE, ()).await?.job.id;
    /// let explained = endpoints.explain(id).await?.expect("the job exists");
    /// println!("{}", explained.verdict); // The job waits because no live worker runs Resize.
    /// assert_eq!(explained.reasons[0].code, ReasonCode::NoWorker);
    /// # Ok(()) }
    /// ```
    pub async fn explain(&self, id: JobId) -> Result<Option<Explained>, StoreError> {
        within(async {
            match self.0.store.get(id).await? {
                JobLookup::Found(job) => self.explain_to(&job, Viewer::Operator).await.map(Some),
                JobLookup::Gone { .. } | JobLookup::NotFound => Ok(None),
            }
        })
        .await
    }

    /// Explains a job that was just read.
    pub(crate) async fn explain_to(&self, job: &JobView, viewer: Viewer) -> Result<Explained, StoreError> {
        let recent = self.0.stats_cache.refresh().await?;
        let stats = within(self.0.store.stats(&StatsQuery::default())).await?;
        self.explain_by(job, &stats, &recent.minutes, viewer).await
    }

    /// Explains a job by these statistics and minutes.
    pub(super) async fn explain_by(
        &self,
        job: &JobView,
        stats: &Stats,
        minutes: &[MinuteStats],
        viewer: Viewer,
    ) -> Result<Explained, StoreError> {
        let running = if job.status == JobStatus::Queued { self.running(job).await? } else { Vec::new() };
        let controls = self.0.controls.soon().await;
        let facts = self.facts(job, stats, minutes, &running, &controls, viewer);
        Ok(explain(&facts))
    }

    /// How long a queued job is expected to wait, from statistics that are at most 15 s old. Makes no store call. `None` if there
    /// are none, or if they do not say.
    pub(crate) fn expected_wait(&self, job: &JobView) -> Option<Duration> {
        if job.status != JobStatus::Queued {
            return None;
        }
        let stats = self.0.stats_cache.latest()?;
        let controls = self.0.controls.latest();
        expected_wait(&self.facts(job, &stats, &stats.minutes, &[], &controls, Viewer::Caller))
    }

    fn facts<'a>(
        &self,
        job: &'a JobView,
        stats: &'a Stats,
        minutes: &'a [MinuteStats],
        running: &'a [Timestamp],
        controls: &'a Controls,
        viewer: Viewer,
    ) -> Facts<'a> {
        let (lease, timeout) = (self.options().lease, self.timeout(job));
        let (pause, paused) = (controls.pause(&job.name), controls.paused().collect());
        let per_process = controls.of(&job.name).per_process;
        Facts { job, stats, minutes, running, pause, per_process, paused, lease, timeout, viewer }
    }

    /// When the running attempts of the job's type started, the earliest first. At most 200.
    async fn running(&self, job: &JobView) -> Result<Vec<Timestamp>, StoreError> {
        let filter =
            ListFilter { status: Some(JobStatus::InProgress), name: Some(job.name.clone()), ..ListFilter::default() };
        let page = within(self.0.store.list(&filter, &Page { cursor: None, limit: PAGE_JOBS })).await?;
        Ok(page.jobs.iter().filter_map(|job| job.started_at).collect())
    }

    /// The timeout of the job's attempts, if its type is declared in this process.
    fn timeout(&self, job: &JobView) -> Option<Duration> {
        let mut cutoffs = self.0.stats_cache.cutoffs().iter();
        cutoffs.find(|cutoffs| cutoffs.name == job.name).map(timeout_of)
    }
}
