//! What operators see and change of job types.

use async_endpoints_core::{JobName, StoreError, Timestamp, store::StatsQuery};

use super::AsyncEndpoints;
use crate::{
    capacity::without_silent,
    store_call::within,
    types::{self, Change, TypeChangeError, TypeControl, TypeState},
};

impl AsyncEndpoints {
    /// Returns the state of each job type by name: counts, running attempts, pause and limits.
    ///
    /// These are the types that are declared in this process, have or had jobs, or have a live worker. Every process returns
    /// the same for a type. Makes at most three store calls.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// for of_type in endpoints.types().await? {
    ///     println!("{}: {} queued, {} of {} running", of_type.name, of_type.counts.queued, of_type.running, of_type.limit);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn types(&self) -> Result<Vec<TypeState>, StoreError> {
        let controls = self.0.controls.read().await?;
        let stats = within(self.0.store.stats(&StatsQuery::default())).await?;
        let stats = without_silent(stats, self.options().lease);
        Ok(types::states(&stats, &controls, &self.declared_types()))
    }

    /// Pauses a job type: within 2 s no process starts its jobs any more. Running attempts go on, and jobs are accepted.
    ///
    /// The pause ends at `until`, by the store's clock, or when the type is [resumed](Self::resume_type). It survives
    /// restarts. A second pause of the type replaces reason and end.
    ///
    /// # Errors
    ///
    /// The type is unknown, the reason is empty or longer than 500 characters, or the end is past or more than a year ahead.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, JobContext, JobStatus, JobType, JobLookup, MemoryStore};
    /// # const PRINT: JobType<(), ()> = JobType::new("Print");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).handler(PRINT, async |_: JobContext<()>| Ok(())).build()?;
    /// endpoints.pause_type("Print", "The printer has no paper.", None).await?;
    /// # let id = endpoints.submit(PRINT, ()).await?.job.id;
    /// # endpoints.run_until_idle().await?;
    /// # let JobLookup::Found(job) = endpoints.job(id).await? else { panic!("not found") };
    /// # assert_eq!(job.status, JobStatus::Queued);
    /// endpoints.resume_type("Print").await?;
    /// # endpoints.run_until_idle().await?;
    /// # let JobLookup::Found(job) = endpoints.job(id).await? else { panic!("not found") };
    /// # assert_eq!(job.status, JobStatus::Completed);
    /// # Ok(()) }
    /// ```
    pub async fn pause_type(
        &self,
        name: &str,
        reason: impl Into<String>,
        until: Option<Timestamp>,
    ) -> Result<TypeState, TypeChangeError> {
        self.change_type(name, Change::Pause { reason: reason.into(), until }).await
    }

    /// Ends the pause of a job type: within 2 s all processes start its jobs again. A type without a pause stays as it is.
    ///
    /// # Errors
    ///
    /// The type is unknown.
    pub async fn resume_type(&self, name: &str) -> Result<TypeState, TypeChangeError> {
        self.change_type(name, Change::Resume).await
    }

    /// Sets the maximum number of concurrent attempts of a job type in each process, or removes it with `None`.
    ///
    /// Applies in every process within 2 s, to new attempts: running ones go on. Survives restarts. The limit can only
    /// lower [`JobType::concurrency`](crate::JobType::concurrency).
    ///
    /// # Errors
    ///
    /// The type is unknown, or the limit is not 1 to 100 000. Pause a type to stop it.
    pub async fn limit_type(&self, name: &str, per_process: Option<u32>) -> Result<TypeState, TypeChangeError> {
        self.change_type(name, Change::Limit(per_process)).await
    }

    async fn change_type(&self, name: &str, change: Change) -> Result<TypeState, TypeChangeError> {
        let inner = &self.0;
        let declared = self.declared_types();
        let lease = self.options().lease;
        let state = types::change(&*inner.store, &inner.controls, name, &declared, lease, change).await?;
        inner.worker.wake();
        Ok(state)
    }

    pub(super) fn declared_types(&self) -> Vec<JobName> {
        self.0.types.values().cloned().collect()
    }

    /// What operators decided about a type, at most two seconds old. Makes no store call in a process that serves or runs jobs.
    pub(crate) async fn type_control(&self, name: &JobName) -> TypeControl {
        self.0.controls.soon().await.of(name)
    }
}
