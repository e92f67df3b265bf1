//! Jobs with decoded results, for code. Must not know HTTP.

use std::ops::Deref;

use async_endpoints_core::{JobId, JobName, JobStatus, JobView, StoreError, job::ErrorRecord, store::JobLookup};
use serde::de::DeserializeOwned;

use crate::{AsyncEndpoints, fleet::Waiting, job_type::JobType};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The id is unknown.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job ended, and its retention time has passed.
    #[error("job {0} has expired")]
    Expired(JobId),
    /// The job has not ended.
    #[error("the job is {0} and has no result yet")]
    NotEnded(JobStatus),
    /// The job failed or was canceled. The error says why.
    #[error("the job is {status}: {}", .error.as_ref().map_or("no error is stored", |error| &*error.code))]
    Ended {
        /// Failed or Canceled.
        status: JobStatus,
        /// The job's error, without the parts that depend on its reader.
        error: Option<Box<ErrorRecord>>,
    },
    /// The job is of another type than expected.
    #[error("the job is of type {found}, expected {expected}")]
    OtherType {
        /// The job's type.
        found: JobName,
        /// The expected type.
        expected: &'static str,
    },
    /// The stored result cannot be read as the requested type.
    #[error("the result of job {id} cannot be read: {reason}")]
    Unreadable {
        /// The job.
        id: JobId,
        /// The reason.
        reason: String,
    },
    /// The store failed or did not answer in time.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job with what `GET /jobs/{id}` shows of it, and its result as `Res`. Dereferences to [`JobView`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TypedJob<Res> {
    /// The job.
    pub view: JobView,
    /// Why the job waits; `None` if it does not wait.
    pub waiting: Option<Waiting>,
    /// The result; `None` unless the job is Completed.
    pub result: Option<Res>,
}

impl<Res> TypedJob<Res> {
    /// Returns the result, or why there is none.
    pub fn into_result(self) -> Result<Res, ResultError> {
        let Self { view, result, .. } = self;
        result.ok_or_else(|| match view.status {
            status @ (JobStatus::Failed | JobStatus::Canceled) => {
                ResultError::Ended { status, error: view.error.map(Box::new) }
            }
            JobStatus::Completed => ResultError::Unreadable { id: view.id, reason: "it is missing".to_owned() },
            status => ResultError::NotEnded(status),
        })
    }
}

impl<Res> Deref for TypedJob<Res> {
    type Target = JobView;

    fn deref(&self) -> &JobView {
        &self.view
    }
}

impl AsyncEndpoints {
    /// Returns the result of a completed job, decoded. [`wait`](Self::wait) waits for the end of a job.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobType, ResultError};
    /// # const COUNT: JobType<String, usize> = JobType::new("Count");
    /// # async fn run(endpoints: &AsyncEndpoints) -> Result<(), Box<dyn std::error::Error>> {
    /// let id = endpoints.submit(COUNT, "two words".to_owned()).await?.job.id;
    /// endpoints.wait(id, Duration::from_secs(5)).await?;
    /// match endpoints.result::<usize>(id).await {
    ///     Ok(words) => println!("{words} words"),
    ///     Err(ResultError::NotEnded(status)) => println!("still {status}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn result<Res: DeserializeOwned>(&self, id: JobId) -> Result<Res, ResultError> {
        self.decoded(self.found(id).await?).await?.into_result()
    }

    /// Returns a job of this type with its result decoded, and why it waits.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, JobId, JobType};
    /// # const COUNT: JobType<String, usize> = JobType::new("Count");
    /// # async fn run(endpoints: &AsyncEndpoints, id: JobId) -> Result<(), Box<dyn std::error::Error>> {
    /// let job = endpoints.typed_job(COUNT, id).await?;
    /// match (job.result, job.waiting) {
    ///     (Some(words), _) => println!("{words} words"),
    ///     (None, Some(waiting)) => println!("waits: {:?}, {:?} jobs ahead", waiting.reason, waiting.ahead),
    ///     (None, None) => println!("{}", job.view.status),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn typed_job<Req, Res: DeserializeOwned>(
        &self,
        job: JobType<Req, Res>,
        id: JobId,
    ) -> Result<TypedJob<Res>, ResultError> {
        let view = self.found(id).await?;
        if view.name.as_str() != job.name() {
            return Err(ResultError::OtherType { found: view.name, expected: job.name() });
        }
        self.decoded(view).await
    }

    async fn found(&self, id: JobId) -> Result<JobView, ResultError> {
        match self.job(id).await? {
            JobLookup::Found(view) => Ok(*view),
            JobLookup::Gone { .. } => Err(ResultError::Expired(id)),
            JobLookup::NotFound => Err(ResultError::NotFound(id)),
        }
    }

    async fn decoded<Res: DeserializeOwned>(&self, view: JobView) -> Result<TypedJob<Res>, ResultError> {
        let unreadable = |error: serde_json::Error| ResultError::Unreadable { id: view.id, reason: error.to_string() };
        let result = view.result.as_deref().map(serde_json::from_slice).transpose().map_err(unreadable)?;
        Ok(TypedJob { waiting: self.waiting(&view).await, result, view })
    }
}
