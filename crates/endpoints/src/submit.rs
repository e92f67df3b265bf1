//! Submissions from code. Must not know HTTP.

use std::{future::IntoFuture, time::Duration};

use async_endpoints_core::{JobId, JobName, Priority, store::NewJob};
use async_endpoints_telemetry::trace::Context;
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    AsyncEndpoints,
    envelope::{self, RequestParts},
    job_type::{JobType, Policy},
    new_job::{self, Accepted, Identity, SubmitError, fingerprint},
    owner::JobOwner,
    telemetry::{SubmissionResult, run_in},
};

impl AsyncEndpoints {
    /// Submits a job from code. Set its options on the returned [`Submit`], then await it. A handler submits follow-up jobs
    /// with [`JobContext::submit`](crate::JobContext::submit).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobType, MemoryStore};
    /// # const RESIZE: JobType<String, u32> = JobType::new("Resize");
    /// # async fn submit(endpoints: &AsyncEndpoints) -> Result<(), async_endpoints::SubmitError> {
    /// let accepted = endpoints.submit(RESIZE, "photo.jpg".to_owned()).await?;
    /// let later = endpoints.submit(RESIZE, "photo.jpg".to_owned()).delay(Duration::from_secs(60)).await?;
    /// # Ok(()) }
    /// ```
    pub fn submit<Req: Serialize, Res>(&self, job: JobType<Req, Res>, request: Req) -> Submit<'_> {
        let body = serde_json::value::to_raw_value(&request);
        let policy = job.rules.resolve(self.options());
        Submit {
            endpoints: self,
            name: job.name(),
            policy,
            body,
            id: None,
            key: None,
            owner: None,
            parts: RequestParts::default(),
            query: String::new(),
            parent: None,
            invalid: None,
        }
    }

    /// Prepares a job that a transaction of the application creates in its own PostgreSQL database. Short for
    /// [`submit`](Self::submit) and [`Submit::prepare`], which has options.
    ///
    /// ```no_run
    /// # use async_endpoints::{AsyncEndpoints, JobType, postgres::tokio_postgres};
    /// # const RESIZE: JobType<String, u32> = JobType::new("Resize");
    /// # async fn upload(
    /// #     endpoints: &AsyncEndpoints,
    /// #     client: &mut tokio_postgres::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let job = endpoints.prepare(RESIZE, "photo.jpg".to_owned())?;
    /// let transaction = client.transaction().await?;
    /// transaction.execute("INSERT INTO photos (name) VALUES ('photo.jpg')", &[]).await?;
    /// job.enqueue(&transaction).await?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if the name is invalid or the request cannot be written as JSON.
    #[cfg(feature = "postgres")]
    pub fn prepare<Req: Serialize, Res>(
        &self,
        job: JobType<Req, Res>,
        request: Req,
    ) -> Result<crate::postgres::PreparedJob, SubmitError> {
        self.submit(job, request).prepare()
    }

    /// Stores a job, or finds the job of an earlier, identical submission.
    pub(crate) fn accept(&self, job: NewJob) -> impl Future<Output = Result<Accepted, SubmitError>> {
        self.acceptor().accept(job)
    }

    /// Counts and logs a submission that was refused before `insert`.
    pub(crate) fn count_refused(&self, name: &JobName, result: SubmissionResult, code: Option<&str>) {
        self.measured().refused(name, result, code);
    }
}

/// A submission from code: set its options, then await it.
#[must_use = "the job is submitted when this is awaited"]
#[derive(Debug)]
pub struct Submit<'a> {
    pub(crate) endpoints: &'a AsyncEndpoints,
    name: &'static str,
    policy: Policy,
    body: serde_json::Result<Box<serde_json::value::RawValue>>,
    pub(crate) id: Option<JobId>,
    pub(crate) key: Option<String>,
    pub(crate) owner: Option<JobOwner>,
    pub(crate) parts: RequestParts,
    /// The query as it was sent.
    pub(crate) query: String,
    /// The context of the request that the job was submitted for.
    pub(crate) parent: Option<Context>,
    /// What is wrong with that request.
    pub(crate) invalid: Option<String>,
}

impl<'a> Submit<'a> {
    /// Sets the job's priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.policy.priority = priority;
        self
    }

    /// Sets the job's delay: it starts no earlier than this time after it was accepted.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.policy.delay = delay;
        self
    }

    /// Sets the job's id. A repeat of the same request with this id returns the same job.
    pub fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets an idempotency key: 1 to 255 visible ASCII characters. A repeat of the same request with this key returns the
    /// same job.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the job's owner, like [`Builder::owner`](crate::Builder::owner) does for requests. Defaults to no owner.
    pub fn owner(mut self, name: &str) -> Self {
        self.owner = Some(JobOwner::new(name, self.endpoints.options().owner_labels));
        self
    }

    /// Prepares the job in place of submitting it: a transaction of the application creates it in its own PostgreSQL database.
    /// The job's trace is the current one. The submission is not counted in this process's metrics.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] if an option is invalid or the request cannot be written as JSON.
    #[cfg(feature = "postgres")]
    pub fn prepare(mut self) -> Result<crate::postgres::PreparedJob, SubmitError> {
        let context = self.parent.take().unwrap_or_else(Context::current);
        let job = self.new_job()?.trace(crate::telemetry::scope::stored(&context));
        Ok(crate::postgres::PreparedJob::new(job))
    }

    fn new_job(self) -> Result<NewJob, SubmitError> {
        let invalid = SubmitError::Invalid;
        if let Some(detail) = self.invalid {
            return Err(invalid(detail));
        }
        let name = self.endpoints.job_name(self.name).map_err(|error| invalid(error.to_string()))?;
        let body = new_job::body(self.body)?;
        let key = self.key.as_deref().map(new_job::idempotency_key).transpose()?;
        let fingerprint = fingerprint(&name, &self.parts.path, &self.query, body.get().as_bytes());
        let identity = Identity { id: self.id, key, owner: self.owner, fingerprint };
        let payload = envelope::write(body.get(), &self.parts);
        Ok(new_job::new_job(self.endpoints.options(), name, &self.policy, identity, payload))
    }
}

impl<'a> IntoFuture for Submit<'a> {
    type Output = Result<Accepted, SubmitError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        let (endpoints, parent) = (self.endpoints, self.parent.take());
        match self.new_job() {
            Ok(job) => Box::pin(run_in(parent, endpoints.accept(job))),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
