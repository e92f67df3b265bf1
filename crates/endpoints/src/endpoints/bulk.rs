//! Bulk operations.

use async_endpoints_core::{
    JobId, JobStatus, StoreError,
    store::{CancelOutcome, JobLookup, RetryOutcome},
};
use uuid::Uuid;

use super::AsyncEndpoints;
use crate::{
    bulk::{Act, Acted, BulkAction, BulkError, BulkOperation, BulkPreview, NewBulk},
    worker::supervise,
};

impl AsyncEndpoints {
    /// Previews a bulk operation: freezes its members, which are the jobs that match now, and counts them for at most 3 s.
    /// [`start_bulk`](Self::start_bulk) starts it. The last 20 previews are kept.
    ///
    /// # Errors
    ///
    /// A filter is invalid or has no effect with the action, or the store failed.
    ///
    /// ```
    /// use async_endpoints::{AsyncEndpoints, BulkAction, BulkFilter, JobStatus, NewBulk};
    ///
    /// # async fn run(endpoints: &AsyncEndpoints) -> Result<(), Box<dyn std::error::Error>> {
    /// let filter = BulkFilter { status: Some(JobStatus::Failed), code: Some("NO_PAPER".into()), ..BulkFilter::default() };
    /// let preview = endpoints.preview_bulk(NewBulk { action: BulkAction::Retry, filter }).await?;
    /// println!("{} jobs, such as {:?}", preview.count, preview.sample);
    /// endpoints.start_bulk(preview.id).await?;
    /// # Ok(()) }
    /// ```
    pub async fn preview_bulk(&self, new: NewBulk) -> Result<BulkPreview, BulkError> {
        self.0.bulk.preview(new).await
    }

    /// Starts a previewed operation. One process that [serves](Self::serve) or [runs](Self::run) endpoints runs it, and another
    /// one continues it if that process dies. Operations run one after the other. A repeated call starts nothing and returns the
    /// operation as it is now, also after its end.
    ///
    /// # Errors
    ///
    /// There is no such preview, it has expired, ten operations wait or run, or the store failed.
    pub async fn start_bulk(&self, preview: Uuid) -> Result<BulkOperation, BulkError> {
        self.0.bulk.start(preview).await
    }

    /// Returns a started operation.
    ///
    /// # Errors
    ///
    /// There is no such operation, it was not started, or the store failed.
    pub async fn bulk(&self, id: Uuid) -> Result<BulkOperation, BulkError> {
        self.0.bulk.operation(id).await
    }

    /// Returns the started operations, newest first: those that wait or run, and the last 50 that ended.
    pub async fn bulks(&self) -> Result<Vec<BulkOperation>, StoreError> {
        self.0.bulk.operations().await
    }

    /// Stops an operation, and returns it. It changes no more jobs after 2 s; what it changed stays changed. One that has ended
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// There is no such operation, it was not started, or the store failed.
    pub async fn stop_bulk(&self, id: Uuid) -> Result<BulkOperation, BulkError> {
        self.0.bulk.stop(id).await
    }

    /// Starts the task that runs bulk operations. The future returns when it has ended, at the begin of the drain.
    pub(super) fn start_bulk_runner(&self) -> impl Future<Output = ()> + use<> {
        let (bulk, worker, act) = (self.0.bulk.clone(), self.0.worker.clone(), self.act());
        let task = tokio::spawn(async move {
            supervise("bulk", worker.restarts(), || bulk.run(&act, worker.stopping())).await;
        });
        async move {
            let _ = task.await;
        }
    }

    fn act(&self) -> Act {
        let endpoints = self.clone();
        Box::new(move |action, status, id| {
            let endpoints = endpoints.clone();
            Box::pin(async move { endpoints.act_on(action, status, id).await })
        })
    }

    async fn act_on(&self, action: BulkAction, status: Option<JobStatus>, id: JobId) -> Result<Acted, StoreError> {
        Ok(match action {
            BulkAction::Cancel if self.has_left(status, id).await? => Acted::Skipped,
            BulkAction::Cancel => match self.cancel(id).await? {
                CancelOutcome::Canceled(_) | CancelOutcome::Requested(_) => Acted::Changed,
                CancelOutcome::Terminal(job) if job.status == JobStatus::Canceled => Acted::Already,
                CancelOutcome::Terminal(_) | CancelOutcome::Gone { .. } | CancelOutcome::NotFound => Acted::Skipped,
            },
            BulkAction::Retry => match self.retry(id).await? {
                RetryOutcome::Created(_) => Acted::Changed,
                RetryOutcome::Existing(_) => Acted::Already,
                RetryOutcome::NotEnded(_) | RetryOutcome::Gone { .. } | RetryOutcome::NotFound => Acted::Skipped,
                // The random id of the new job exists already.
                RetryOutcome::Conflict => Acted::Failed,
            },
        })
    }

    /// Whether a job that has not ended has another state than this one. A waiting job may have started since the preview.
    async fn has_left(&self, status: Option<JobStatus>, id: JobId) -> Result<bool, StoreError> {
        let Some(status) = status else { return Ok(false) };
        let found = self.job(id).await?;
        Ok(matches!(found, JobLookup::Found(job) if !job.status.is_terminal() && job.status != status))
    }
}
