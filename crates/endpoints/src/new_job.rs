//! Makes the jobs of submissions: from HTTP, from code, and from handlers. Must not know stores or HTTP.

use std::fmt;

use async_endpoints_core::{
    JobId, JobName, JobView,
    job::{Digest, JobTerms},
    store::{IdempotencyKey, NewJob, StoreError},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{job_type::Policy, json, options::Options, owner::JobOwner};

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

/// Stores the jobs of submissions.
pub(crate) trait Acceptor: fmt::Debug + Send + Sync {
    fn options(&self) -> &Options;

    /// Stores a job, or finds the job of an earlier, identical submission.
    fn accept(&self, job: NewJob) -> BoxFuture<'_, Result<Accepted, SubmitError>>;
}

/// Makes a job with the rules of its type. Its id is the chosen one, else derived from the key, else random.
pub(crate) fn new_job(options: &Options, name: JobName, policy: &Policy, identity: Identity, payload: Bytes) -> NewJob {
    let Identity { id, key, owner, fingerprint } = identity;
    let terms = JobTerms {
        priority: policy.priority,
        max_retries: policy.max_retries,
        max_losses: options.max_losses,
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

/// The JSON of a request from code.
pub(crate) fn body(written: serde_json::Result<Box<RawValue>>) -> Result<Box<RawValue>, SubmitError> {
    let body = written.map_err(|error| SubmitError::Invalid(error.to_string()))?;
    if json::is_too_deep(body.get().as_bytes()) {
        let detail = format!("the request is nested deeper than {} levels", json::MAX_DEPTH);
        return Err(SubmitError::Invalid(detail));
    }
    Ok(body)
}

/// Checks an idempotency key from code.
pub(crate) fn idempotency_key(key: &str) -> Result<IdempotencyKey, SubmitError> {
    let expected = "1 to 255 visible ASCII characters";
    let invalid = || SubmitError::Invalid(format!("invalid idempotency key {key:?}: expected {expected}"));
    IdempotencyKey::new(key).ok_or_else(invalid)
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
