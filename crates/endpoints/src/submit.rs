//! Accepting a job, from HTTP or from code. Must not know how either words its answer.

use std::{future::IntoFuture, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobView, Priority,
    job::{Digest, JobTerms, TraceContext},
    store::{IdempotencyKey, InsertOutcome, JobLookup, NewJob, StoreError},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    AsyncEndpoints, envelope, envelope::RequestParts, job_type::Policy, json, store_call::within, telemetry::Submission,
};

/// Why a job was not accepted. Nothing is stored of it, unless the store did not answer: then a repeat with the
/// same key is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many jobs of its name wait as may.
    #[error("the queue is full")]
    QueueFull,
    /// The key or the id belongs to another request.
    #[error("the idempotency key or the id belongs to another request")]
    Conflict,
    /// The same request was made before, and its job is past its retention.
    #[error("the job of this request has expired")]
    Expired,
    /// The process stops.
    #[error("shutting down")]
    ShuttingDown,
    /// The name is none, or the request cannot be written as JSON.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job that the store has.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// As it is now.
    pub job: JobView,
    /// It was accepted before: the same key or id came again.
    pub replayed: bool,
}

/// A job on its way to the store.
pub(crate) struct Draft {
    pub(crate) id: Option<JobId>,
    pub(crate) name: JobName,
    pub(crate) policy: Policy,
    pub(crate) payload: Bytes,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) fingerprint: Digest,
    pub(crate) owner: Option<Digest>,
    pub(crate) trace: Option<TraceContext>,
}

impl AsyncEndpoints {
    /// Hands a job to the store; what it had before counts as well.
    ///
    /// No `async fn`: what is only needed before the call must not swell the future that waits for it.
    pub(crate) fn accept(&self, draft: Draft) -> impl Future<Output = Result<Accepted, SubmitError>> + Send + '_ {
        // All but the payload, to make the answer of what was sent and what comes back: no second trip.
        let terms = JobTerms {
            priority: draft.policy.priority,
            max_retries: draft.policy.max_retries,
            max_losses: self.options().max_losses,
            retention: draft.policy.retention,
        };
        let id = draft.id.unwrap_or_else(JobId::random);
        let sent = NewJob::new(id, draft.name, Bytes::new(), terms, draft.fingerprint)
            .id_chosen(draft.id.is_some())
            .delay(draft.policy.delay)
            .queue_limit(draft.policy.max_queue_size)
            .key(draft.key)
            .owner(draft.owner)
            .trace(draft.trace);
        let insert = self.store().insert(NewJob { payload: draft.payload, ..sent.clone() });
        async move {
            if self.is_shutting_down() {
                self.refused(&sent.name, Submission::Rejected);
                return Err(SubmitError::ShuttingDown);
            }
            match within(insert).await? {
                InsertOutcome::Inserted { created_at, version, ahead } => {
                    Ok(Accepted { job: sent.view(created_at, version, ahead), replayed: false })
                }
                InsertOutcome::Existing(JobLookup::Found(job)) => Ok(Accepted { job: *job, replayed: true }),
                InsertOutcome::Existing(_) => Err(SubmitError::Expired),
                InsertOutcome::Conflict => Err(SubmitError::Conflict),
                InsertOutcome::Full => Err(SubmitError::QueueFull),
            }
        }
    }
}

impl AsyncEndpoints {
    /// Counts a submission that does not come to the store.
    pub(crate) fn refused(&self, name: &JobName, result: Submission) {
        if let Some(measured) = self.measured() {
            measured.refused(name, result);
        }
    }
}

/// Tells a repeat from another request: SHA-256 of job name, path parameters, query and body, each with its length.
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

/// Whose a job is, as stores know it: they compare owners and need not know them.
pub(crate) fn owner_digest(name: &str) -> Digest {
    Digest(Sha256::digest(name.as_bytes()).into())
}

/// A job to submit from code: set what is special about it and await it.
#[must_use = "a job is submitted when this is awaited"]
#[derive(Debug)]
pub struct Submit<'a> {
    endpoints: &'a AsyncEndpoints,
    name: &'static str,
    policy: Policy,
    body: serde_json::Result<Box<serde_json::value::RawValue>>,
    id: Option<JobId>,
    key: Option<String>,
    owner: Option<Digest>,
}

impl<'a> Submit<'a> {
    pub(crate) fn new(
        endpoints: &'a AsyncEndpoints,
        name: &'static str,
        policy: Policy,
        request: &impl Serialize,
    ) -> Self {
        let body = serde_json::value::to_raw_value(request);
        Self { endpoints, name, policy, body, id: None, key: None, owner: None }
    }

    /// Goes before or after others of its type.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.policy.priority = priority;
        self
    }

    /// May not start before that time has passed.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.policy.delay = delay;
        self
    }

    /// Has this id; submitted again with the same request, it is the same job.
    pub fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }

    /// Submitted again under the same key, it is the same job.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Is that one's, as if they had sent it: see [`Builder::owner`](crate::Builder::owner). Else it is nobody's.
    pub fn owner(mut self, name: &str) -> Self {
        self.owner = Some(owner_digest(name));
        self
    }

    fn draft(self) -> Result<Draft, SubmitError> {
        let name = self.endpoints.job_name(self.name).map_err(|error| SubmitError::Invalid(error.to_string()))?;
        let invalid = |error: serde_json::Error| SubmitError::Invalid(error.to_string());
        let body = self.body.map_err(invalid)?;
        if json::depth(body.get().as_bytes()) > json::DEPTH {
            return Err(SubmitError::Invalid(format!("the request is nested deeper than {}", json::DEPTH)));
        }
        let key = self.key.map(|key| {
            IdempotencyKey::new(&key).ok_or_else(|| SubmitError::Invalid(format!("{key:?} is no idempotency key")))
        });
        Ok(Draft {
            id: self.id,
            fingerprint: fingerprint(&name, &[], "", body.get().as_bytes()),
            name,
            policy: self.policy,
            payload: envelope::write(body.get(), &RequestParts::default()),
            key: key.transpose()?,
            owner: self.owner,
            trace: None,
        })
    }
}

impl<'a> IntoFuture for Submit<'a> {
    type Output = Result<Accepted, SubmitError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let endpoints = self.endpoints;
        match self.draft() {
            Ok(draft) => Box::pin(endpoints.accept(draft)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
