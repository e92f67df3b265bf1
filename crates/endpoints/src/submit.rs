//! Accepting jobs, from HTTP and from code. Must not know HTTP.

use std::{future::IntoFuture, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobView, Priority,
    job::{Digest, JobTerms},
    store::{IdempotencyKey, InsertOutcome, JobLookup, NewJob, StoreError},
};
use async_endpoints_telemetry::opentelemetry::{Context, context::FutureExt};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    AsyncEndpoints,
    envelope::{self, RequestParts},
    job_type::{JobType, Policy},
    json,
    owner::JobOwner,
    store_call::within,
    telemetry::SubmissionResult,
};

/// Why a job was not accepted. No job was stored, except perhaps after [`Store`](Self::Store): then a repeat with the
/// same key is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue limit of this job type is reached.
    #[error("the queue is full")]
    QueueFull,
    /// The key or the id was used for another request.
    #[error("the idempotency key or the id belongs to another request")]
    Conflict,
    /// The same request was submitted before, and its job's retention time has passed.
    #[error("the job of this request has expired")]
    Expired,
    /// The process is shutting down.
    #[error("shutting down")]
    ShuttingDown,
    /// The job name or the key is invalid, or the request cannot be written as JSON.
    #[error("{0}")]
    Invalid(String),
    /// The store failed or did not answer in time.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SubmitError {
    /// The code, as in the problem object of a response.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::QueueFull => "QUEUE_FULL",
            Self::Conflict => "IDEMPOTENCY_CONFLICT",
            Self::Expired => "JOB_EXPIRED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::Store(StoreError::Unreadable(_)) => "JOB_UNREADABLE",
            Self::Store(_) => "STORE_UNAVAILABLE",
        }
    }
}

/// A job that the store has accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The job as it is now.
    pub job: JobView,
    /// Whether the job was accepted earlier, under the same key or id.
    pub replayed: bool,
}

/// How the store recognizes a repeated submission.
pub(crate) struct Identity {
    /// The id that the submitter chose.
    pub(crate) id: Option<JobId>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) owner: Option<JobOwner>,
    pub(crate) fingerprint: Digest,
}

impl AsyncEndpoints {
    /// Submits a job from code. Set its options on the returned [`Submit`], then await it.
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

    /// Makes a job with the rules of its type. Its id is the chosen one, else derived from the key, else random.
    pub(crate) fn new_job(&self, name: JobName, policy: &Policy, identity: Identity, payload: Bytes) -> NewJob {
        let Identity { id, key, owner, fingerprint } = identity;
        let terms = JobTerms {
            priority: policy.priority,
            max_retries: policy.max_retries,
            max_losses: self.options().max_losses,
            retention: policy.retention,
        };
        let digest = owner.as_ref().map(JobOwner::digest);
        let new_id = || key.as_ref().map_or_else(JobId::random, |key| JobId::for_key(digest.as_ref(), &name, key));
        NewJob::new(id.unwrap_or_else(new_id), name, payload, terms, fingerprint)
            .id_chosen(id.is_some())
            .delay(policy.delay)
            .queue_limit(policy.max_queue_size)
            .key(key)
            .owner(digest)
            .owner_label(owner.and_then(JobOwner::into_label))
    }

    /// Inserts a job, or finds the job of an earlier, identical submission. The job stores the context of this submission's
    /// span, which is below the current one.
    pub(crate) async fn accept(&self, job: NewJob) -> Result<Accepted, SubmitError> {
        let sending = self.measured().send(Some(&job.name));
        let job = job.trace(sending.stored());
        let accepted = sending.run(self.insert(job)).await;
        match &accepted {
            Ok(accepted) => sending.accepted(accepted.job.id, accepted.replayed),
            Err(error) => sending.failed(error.code()),
        }
        accepted
    }

    async fn insert(&self, job: NewJob) -> Result<Accepted, SubmitError> {
        if self.is_shutting_down() {
            self.count_refused(&job.name, SubmissionResult::Rejected, Some("SHUTTING_DOWN"));
            return Err(SubmitError::ShuttingDown);
        }
        let inserted = job.clone();
        match within(self.store().insert(job)).await? {
            InsertOutcome::Inserted { created_at, version, ahead } => {
                Ok(Accepted { job: inserted.view(created_at, version, ahead), replayed: false })
            }
            InsertOutcome::Existing(JobLookup::Found(job)) => Ok(Accepted { job: *job, replayed: true }),
            InsertOutcome::Existing(_) => Err(SubmitError::Expired),
            InsertOutcome::Conflict => Err(SubmitError::Conflict),
            InsertOutcome::Full => Err(SubmitError::QueueFull),
        }
    }

    /// Counts and logs a submission that was refused before `insert`.
    pub(crate) fn count_refused(&self, name: &JobName, result: SubmissionResult, code: Option<&str>) {
        self.measured().refused(name, result, code);
    }
}

/// Identifies a request: SHA-256 of job name, path parameters, query and body, each preceded by its length.
pub(crate) fn fingerprint(name: &JobName, path: &[(String, String)], query: &str, body: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(name.as_str().as_bytes());
    for (name, value) in path {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(query.as_bytes());
    add(body);
    Digest(hash.finalize().into())
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

    fn new_job(self) -> Result<NewJob, SubmitError> {
        let invalid = SubmitError::Invalid;
        if let Some(detail) = self.invalid {
            return Err(invalid(detail));
        }
        let name = self.endpoints.job_name(self.name).map_err(|error| invalid(error.to_string()))?;
        let body = self.body.map_err(|error| invalid(error.to_string()))?;
        if json::is_too_deep(body.get().as_bytes()) {
            return Err(invalid(format!("the request is nested deeper than {} levels", json::MAX_DEPTH)));
        }
        let key = self.key.map(|key| {
            let expected = "1 to 255 visible ASCII characters";
            IdempotencyKey::new(&key)
                .ok_or_else(|| invalid(format!("invalid idempotency key {key:?}: expected {expected}")))
        });
        let key = key.transpose()?;
        let fingerprint = fingerprint(&name, &self.parts.path, &self.query, body.get().as_bytes());
        let identity = Identity { id: self.id, key, owner: self.owner, fingerprint };
        let payload = envelope::write(body.get(), &self.parts);
        Ok(self.endpoints.new_job(name, &self.policy, identity, payload))
    }
}

impl<'a> IntoFuture for Submit<'a> {
    type Output = Result<Accepted, SubmitError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        let (endpoints, parent) = (self.endpoints, self.parent.take());
        match self.new_job() {
            Ok(job) => Box::pin(endpoints.accept(job).with_context(parent.unwrap_or_else(Context::current))),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
