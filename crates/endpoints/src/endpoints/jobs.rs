//! One job: read, wait, follow, cancel, retry, and why it waits.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, StoreError, Timestamp,
    job::InvalidName,
    store::{CancelOutcome, JobLookup, LiveWorker, RetryAs, RetryOutcome},
};

use super::AsyncEndpoints;
use crate::{
    error::Builtin,
    fleet::{Waiting, WaitingReason, waiting},
    hub::{Follower, version},
    store_call::within,
};

impl AsyncEndpoints {
    /// Returns the current state of a job.
    pub async fn job(&self, id: JobId) -> Result<JobLookup, StoreError> {
        within(self.0.store.get(id)).await
    }

    /// Waits until a job is terminal, at most for `patience` or until this process stops, and returns it.
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<JobLookup, StoreError> {
        self.wait_until(id, patience, |job| job.status.is_terminal()).await
    }

    /// Waits until a job is `done`, at most for `patience` or until this process stops, and returns it.
    pub(crate) async fn wait_until(
        &self,
        id: JobId,
        patience: Duration,
        done: impl Fn(&JobView) -> bool,
    ) -> Result<JobLookup, StoreError> {
        let waits = |lookup: &JobLookup| matches!(lookup, JobLookup::Found(job) if !done(job));
        let follower = self.follow(id);
        let mut lookup = self.job(id).await?;
        let Some(mut follower) = follower else { return Ok(lookup) };
        follower.saw(&lookup);
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        while waits(&lookup) {
            tokio::select! {
                changed = follower.changed(version(&lookup)) => lookup = Arc::unwrap_or_clone(changed),
                () = &mut over => break,
                () = self.0.worker.stopping().cancelled() => break,
            }
        }
        Ok(lookup)
    }

    /// Follows a job. Returns `None` if there are too many followers.
    pub(crate) fn follow(&self, id: JobId) -> Option<Follower> {
        self.start_background();
        self.0.hub.follow(id)
    }

    /// Returns a number that grows when any job may have changed.
    #[cfg(feature = "dashboard")]
    pub(crate) fn job_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.start_background();
        self.0.hub.changes()
    }

    /// Returns the number of [`job_changes`](Self::job_changes). Changes count while a receiver exists.
    #[cfg(feature = "dashboard")]
    pub(crate) fn job_changes_so_far(&self) -> u64 {
        self.0.hub.changes_so_far()
    }

    /// Cancels a waiting job, or requests the cancellation of a running one.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        let canceled = within(self.0.store.cancel(id, &Builtin::Canceled.record(None))).await?;
        if matches!(canceled, CancelOutcome::Requested(_)) {
            // Workers of other processes learn of the request when they renew the lease.
            self.0.worker.stop_canceled(id);
        }
        Ok(canceled)
    }

    /// Creates a new job from a failed or canceled one. A repeated call returns the same new job.
    pub async fn retry(&self, id: JobId) -> Result<RetryOutcome, StoreError> {
        // The new job's type is not known before it is stored.
        let sending = self.measured().send(None);
        let new = RetryAs { id: JobId::random(), trace: sending.stored() };
        let retried = sending.run(within(self.0.store.retry(id, &new))).await;
        sending.retried(retried.as_ref());
        retried
    }

    /// Returns why a job waits, as its JSON document says, or `None` if it does not wait. The list of workers and the pauses
    /// behind it are one to two seconds old.
    pub async fn waiting(&self, job: &JobView) -> Option<Waiting> {
        if !matches!(job.status, JobStatus::Queued | JobStatus::Scheduled) {
            return None;
        }
        let workers = self.0.fleet.last_workers(&self.0.store).await;
        self.waiting_for(job, workers.as_ref().map(|(now, workers)| (*now, &**workers))).await
    }

    /// Returns why a job waits, by the workers of the fleet and the store's time when they were read, if they are known.
    pub(super) async fn waiting_for(
        &self,
        job: &JobView,
        workers: Option<(Timestamp, &[LiveWorker])>,
    ) -> Option<Waiting> {
        let worker = &self.0.worker;
        let runs_here =
            self.0.started.load(Ordering::Acquire) && worker.has_handler(&job.name) && !worker.is_stopping();
        let control = self.type_control(&job.name).await;
        let mut waiting = waiting(job, workers, self.options().lease, control.per_process)?;
        // The list of workers may be older than this process.
        if runs_here && waiting.reason == WaitingReason::NoWorker {
            waiting.reason = WaitingReason::Queued;
        }
        if waiting.reason != WaitingReason::Delayed
            && let Some(pause) = control.pause
        {
            waiting = Waiting { reason: WaitingReason::Paused, until: pause.until, ..waiting };
        }
        Some(waiting)
    }

    /// Returns a job name, without an allocation for declared types.
    pub(crate) fn job_name(&self, name: &str) -> Result<JobName, InvalidName> {
        self.0.types.get(name).cloned().map_or_else(|| JobName::new(name), Ok)
    }
}
