//! Stores the jobs of submissions, with their spans. Must not know HTTP.

use std::{fmt, sync::Arc};

use async_endpoints_core::{
    Store,
    store::{InsertOutcome, JobLookup, NewJob},
};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    hub::Hub,
    new_job::{Accepted, Acceptor, SubmitError},
    options::Options,
    store_call::within,
    telemetry::{Measured, SubmissionResult},
};

/// Accepts jobs in the store.
#[derive(Clone)]
pub(crate) struct StoreAcceptor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) measured: Arc<Measured>,
    pub(crate) options: Options,
    /// Counts accepted jobs as changes.
    pub(crate) hub: Arc<Hub>,
    /// Submissions are refused when it has fired. None for handlers: a running attempt may end during the drain.
    pub(crate) stopping: Option<CancellationToken>,
}

impl Acceptor for StoreAcceptor {
    fn options(&self) -> &Options {
        &self.options
    }

    fn accept(&self, job: NewJob) -> BoxFuture<'_, Result<Accepted, SubmitError>> {
        Box::pin(self.accept(job))
    }
}

impl fmt::Debug for StoreAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAcceptor").finish_non_exhaustive()
    }
}

impl StoreAcceptor {
    /// Inserts a job, or finds the job of an earlier, identical submission. The job stores the context of this submission's
    /// span, which is below the current one.
    pub(crate) async fn accept(&self, job: NewJob) -> Result<Accepted, SubmitError> {
        let sending = self.measured.send(Some(&job.name));
        let job = job.trace(sending.stored());
        let accepted = sending.run(self.insert(job)).await;
        match &accepted {
            Ok(accepted) => sending.accepted(accepted.job.id, accepted.replayed),
            Err(error) => sending.failed(error.code()),
        }
        accepted
    }

    async fn insert(&self, job: NewJob) -> Result<Accepted, SubmitError> {
        if self.stopping.as_ref().is_some_and(CancellationToken::is_cancelled) {
            self.measured.refused(&job.name, SubmissionResult::Rejected, Some("SHUTTING_DOWN"));
            return Err(SubmitError::ShuttingDown);
        }
        let inserted = job.clone();
        match within(self.store.insert(job)).await? {
            InsertOutcome::Inserted { created_at, version, ahead } => {
                self.hub.job_accepted();
                Ok(Accepted { job: inserted.view(created_at, version, ahead), replayed: false })
            }
            InsertOutcome::Existing(JobLookup::Found(job)) => Ok(Accepted { job: *job, replayed: true }),
            InsertOutcome::Existing(_) => Err(SubmitError::Expired),
            InsertOutcome::Conflict => Err(SubmitError::Conflict),
            InsertOutcome::Full => Err(SubmitError::QueueFull),
        }
    }
}
