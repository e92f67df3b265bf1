//! Queries about all jobs: statistics, workers, and slow, stuck and failed jobs.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobId, JobName, StoreError, Timestamp,
    job::LogLine,
    store::{LiveWorker, Stats, StatsQuery, TypeCutoffs},
};

use super::AsyncEndpoints;
use crate::{
    failure_rate::FailureRates,
    failures::{self, Failures},
    hub::LINES,
    series::TypeSeries,
    slow::{self, SlowJobs},
    stats::{self, JobStats},
    store_call::within,
    stuck::{self, StuckJob},
};

impl AsyncEndpoints {
    /// Returns the fleet's statistics: current counts, and rates and times of a window of at most six hours.
    ///
    /// They come from the store's own counts, so they are exact, survive restarts and are the same in every process. Takes
    /// one store call.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobContext, JobType, MemoryStore};
    /// # const RESIZE: JobType<(), ()> = JobType::new("Resize");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).handler(RESIZE, async |_: JobContext<()>| Ok(())).build()?;
    /// # endpoints.submit(RESIZE, ()).await?;
    /// # endpoints.run_until_idle().await?;
    /// let stats = endpoints.stats(Duration::from_secs(10 * 60)).await?;
    /// assert_eq!(stats.job_types["Resize"].completed_jobs, 1);
    /// assert!(stats.total.error_rate < 5.0 && stats.total.processing_time.p99.is_some());
    /// # Ok(()) }
    /// ```
    pub async fn stats(&self, window: Duration) -> Result<JobStats, StoreError> {
        let stats = self.all_minutes(self.0.stats_cache.cutoffs().to_vec()).await?;
        Ok(JobStats::of(&stats, window, self.0.types.values()))
    }

    /// Returns how many jobs completed and failed in a window, of all types together and of each type.
    ///
    /// A job counts once, when it becomes Completed or Failed. Retried attempts and canceled jobs do not count. The alert rule
    /// `failure_rate` uses the same counts.
    ///
    /// The window ends now, by the store's clock, and begins with a whole minute: it is at least `window` long and less than a
    /// minute longer. Stores keep six hours, the current minute included; a longer window is cut to them. The counts come from
    /// the store's minute statistics, so they are exact, survive restarts and are the same in every process.
    ///
    /// Takes one store call and reads no jobs.
    ///
    /// # Errors
    ///
    /// The store is unavailable, does not answer within 4.5 s, or cannot read its statistics.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobContext, JobType, MemoryStore};
    /// # const RESIZE: JobType<(), ()> = JobType::new("Resize");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).handler(RESIZE, async |_: JobContext<()>| Ok(())).build()?;
    /// # endpoints.submit(RESIZE, ()).await?;
    /// # endpoints.run_until_idle().await?;
    /// let rates = endpoints.failure_rate(Duration::from_secs(60 * 60)).await?;
    /// let resize = rates.job_types["Resize"];
    /// println!("{} of {} jobs failed, {:.1} %", resize.failed, resize.ended(), resize.percent());
    /// assert_eq!((resize.ended(), rates.total.percent()), (1, 0.0));
    /// # Ok(()) }
    /// ```
    pub async fn failure_rate(&self, window: Duration) -> Result<FailureRates, StoreError> {
        Ok(FailureRates::of(&self.all_minutes(Vec::new()).await?, window))
    }

    /// Reads the statistics of all minutes: a window ends at the store's time, which is not known before the call.
    async fn all_minutes(&self, cutoffs: Vec<TypeCutoffs>) -> Result<Stats, StoreError> {
        within(self.0.store.stats(&StatsQuery { since_minute: Some(0), cutoffs })).await
    }

    /// Returns log lines of a job that follow the line with the number `after`, oldest first, at most 500. The first line has
    /// number 1.
    ///
    /// An unknown job has no lines.
    pub async fn job_logs(&self, id: JobId, after: u64) -> Result<Vec<LogLine>, StoreError> {
        within(self.0.store.logs(id, after, LINES)).await
    }

    /// Returns the statistics by minute of each job type in the store, or of one type, for a window of at most six hours.
    ///
    /// A window ends with the current minute, which counts as a whole one. They come from the store's minute statistics, so they
    /// are exact, survive restarts and are the same in every process. All callers share one store call in five seconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobContext, JobType, MemoryStore};
    /// # const RESIZE: JobType<(), ()> = JobType::new("Resize");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).handler(RESIZE, async |_: JobContext<()>| Ok(())).build()?;
    /// # endpoints.submit(RESIZE, ()).await?;
    /// # endpoints.run_until_idle().await?;
    /// for series in endpoints.series(Duration::from_secs(60 * 60), None).await? {
    ///     let arrivals: u64 = series.points.iter().map(|point| point.arrivals).sum();
    ///     println!("{}: {arrivals} jobs in {} minutes", series.name, series.points.len());
    /// #   assert_eq!((arrivals, series.points.len()), (1, 60));
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn series(&self, window: Duration, name: Option<JobName>) -> Result<Vec<TypeSeries>, StoreError> {
        let recent = self.0.stats_cache.refresh().await?;
        self.0.series.window(&*self.0.store, recent, window, name.as_ref()).await
    }

    /// Returns the live workers of the fleet in the order of their start, at most one second old.
    ///
    /// A worker is listed until its last heartbeat is older than two leases, or until it has drained. Every process sees the
    /// same workers, also processes without handlers. [`explain`](Self::explain), [`waiting`](Self::waiting) and
    /// [`types`](Self::types) ignore a worker earlier, when its last heartbeat is older than 3 s or half a lease, whichever is
    /// more.
    pub async fn workers(&self) -> Result<Arc<[LiveWorker]>, StoreError> {
        self.0.fleet.workers(&self.0.store).await
    }

    /// Returns at most `limit` stuck jobs with their reasons, the longest waiting or running first.
    ///
    /// A job is stuck if nothing moves it although something should have: see [`StuckReason`](crate::StuckReason). The metric
    /// `async_job.stuck` counts these jobs. Times are those of the store, so every process that declares the same job types
    /// returns the same jobs. The timeout of a job of an undeclared type is [`Options::job_timeout`](crate::Options::job_timeout).
    ///
    /// At most two calls read the statistics. For each type with stuck jobs, at most 1 000 jobs of each state are read. In
    /// a longer queue, jobs of low priority may be missing. Stores do not list when a lease expires: if leases of a type
    /// are unrecovered, that many of its longest running jobs without a live worker are taken for theirs.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// for stuck in endpoints.stuck_jobs(20).await? {
    ///     println!("{} {} {:?} since {}", stuck.job.id, stuck.job.name, stuck.reason, stuck.since);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn stuck_jobs(&self, limit: usize) -> Result<Vec<StuckJob>, StoreError> {
        let (stats, cutoffs) = self.0.stats_cache.current(None).await?;
        stuck::list(&*self.0.store, &stats, &cutoffs, limit).await
    }

    /// Returns the number of slow attempts that run or ended since a time, and at most `limit` of their jobs.
    ///
    /// An attempt is slow if it runs for longer than [`JobType::slow_after`](crate::JobType::slow_after) of its type, which
    /// defaults to [`Options::slow_after`](crate::Options::slow_after). Retried, failed and canceled attempts count too; attempts that a worker lost do
    /// not, since their end is not known.
    ///
    /// `since` is a time of the store's clock, such as [`SlowJobs::at`] of the call before. Stores keep the statistics of six
    /// hours, the current minute included; an earlier `since` is cut to them. [`SlowJobs::running`] is the number at this moment.
    /// [`SlowJobs::ended`] comes from the store's minute statistics: it begins with the minute of `since`, survives restarts and
    /// is the same in every process. The list of jobs is exact to the microsecond of `since`. It compares the times of the store:
    /// an attempt whose settlement had to wait for the store may be in the list without being counted.
    ///
    /// At most two calls read the statistics. If a type has slow attempts, the jobs of its states are read, at most 1 000 of each
    /// state, and ended jobs only back to `since`. [`SlowJobs::complete`] is false if that was not enough.
    ///
    /// # Errors
    ///
    /// The store is unavailable, a call takes longer than 4.5 s, or the store cannot read its statistics.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore, Timestamp};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// let hour_ago = Timestamp::from(std::time::SystemTime::now()).before(Duration::from_secs(60 * 60));
    /// let slow = endpoints.slow_jobs(hour_ago, 20).await?;
    /// println!("{} attempts run slow, {} ended", slow.running, slow.ended);
    /// for slow in slow.jobs {
    ///     println!("{} {} attempt {}: {:?}", slow.job.id, slow.job.name, slow.attempt.attempt, slow.run_time);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn slow_jobs(&self, since: Timestamp, limit: usize) -> Result<SlowJobs, StoreError> {
        let (stats, cutoffs) = self.0.stats_cache.current(Some(since.minute())).await?;
        slow::find(&*self.0.store, &stats, &cutoffs, since, limit).await
    }

    /// Returns the jobs that failed in a window, grouped by type and error code. The window ends now, by the store's clock.
    ///
    /// Reads failed jobs, the last ended first, until the window's start: at most 5 000 jobs, in about 2 s.
    /// [`Failures::complete`] is false if that was not enough. Expired jobs are not
    /// counted. [`failure_rate`](Self::failure_rate) has exact numbers of six hours.
    ///
    /// # Errors
    ///
    /// The store is unavailable, or a call takes longer than 4.5 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// for group in endpoints.failures(Duration::from_secs(60 * 60)).await?.failures {
    ///     println!("{} {} {} since {}, see {}", group.count, group.name, group.code, group.first_at, group.sample_id);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn failures(&self, window: Duration) -> Result<Failures, StoreError> {
        let store = &self.0.store;
        let now = within(store.stats(&StatsQuery::default())).await?.now;
        failures::find(&**store, now.before(window), failures::TIME).await
    }

    /// Returns the statistics of the last hour from the cache, at most five seconds old.
    pub(crate) async fn recent_stats(&self) -> Result<JobStats, StoreError> {
        Ok(JobStats::of(&*self.0.stats_cache.refresh().await?, stats::HOUR, self.0.types.values()))
    }
}
