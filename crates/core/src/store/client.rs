//! Arguments and answers of the calls made for clients: insert, cancel, retry.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::JobLookup;
use crate::{
    job::{Digest, JobId, JobName, JobStatus, JobTerms, JobView, TraceContext},
    time::Timestamp,
};

/// A client's key for one request: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Checks a key; none if it is invalid.
    pub fn new(key: &str) -> Option<Self> {
        let fits = (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Number of placements: values of the low 10 bits of an id.
const PLACEMENTS: u64 = 1 << 10;

impl JobId {
    /// A new id whose low 10 bits, its placement, follow from owner, type and idempotency key. The other bits are those of a
    /// new UUID version 7.
    ///
    /// The placement will select one of several stores: a submission and its repeat go to the same store, and the id alone
    /// says which. Nothing reads it yet. An id made without a key has a random placement.
    #[must_use]
    pub fn for_key(owner: Option<&Digest>, name: &JobName, key: &IdempotencyKey) -> Self {
        let parts = [owner.map_or(&[][..], |owner| &owner.0), name.as_str().as_bytes(), key.as_str().as_bytes()];
        let placement = u128::from(fnv_1a(parts) % PLACEMENTS);
        Self(Uuid::from_u128(Uuid::now_v7().as_u128() & !u128::from(PLACEMENTS - 1) | placement))
    }
}

/// FNV-1a over the parts, each followed by a byte that is in none of the texts. Stable, because a placement must not change
/// with a release.
fn fnv_1a(parts: [&[u8]; 3]) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ hash >> 32
}

/// A job to accept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Its id, made by the caller.
    pub id: JobId,
    /// Whether the submitter chose the id and may repeat the submission with it, as with a key. The store then recognizes
    /// the id for at least [`KEY_SECONDS`](crate::limits::KEY_SECONDS).
    pub id_chosen: bool,
    /// Its type.
    pub name: JobName,
    /// The handler's input; opaque to the store.
    pub payload: Bytes,
    /// Its rules.
    pub terms: JobTerms,
    /// Zero makes it Queued, else it is Scheduled.
    pub delay: Duration,
    /// Maximum number of waiting jobs of its type: Queued ones, and Scheduled ones that never started. At the limit the job
    /// is refused as [`InsertOutcome::Full`].
    pub queue_limit: Option<u64>,
    /// Unique among one owner's jobs of one type.
    pub key: Option<IdempotencyKey>,
    /// Distinguishes a repeat from another request with the same key or id.
    pub fingerprint: Digest,
    /// Its owner, hashed.
    pub owner: Option<Digest>,
    /// The owner's name as text, for readers alone.
    pub owner_label: Option<String>,
    /// The trace context of its submission.
    pub trace: Option<TraceContext>,
}

/// The answer to an insert.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertOutcome {
    /// The job is stored.
    Inserted {
        /// When it was accepted.
        created_at: Timestamp,
        /// Its first version.
        version: u64,
        /// Number of jobs of its type that start before it; none if it is Scheduled.
        ahead: Option<u64>,
    },
    /// The same request was accepted before. Its job, [`JobLookup::Found`] or [`JobLookup::Gone`].
    Existing(JobLookup),
    /// The key or the id belongs to another request.
    Conflict,
    /// The queue limit of its type is reached.
    Full,
}

impl NewJob {
    /// A job that is runnable at once, without a key, an owner or a queue limit.
    pub const fn new(id: JobId, name: JobName, payload: Bytes, terms: JobTerms, fingerprint: Digest) -> Self {
        Self {
            id,
            id_chosen: false,
            name,
            payload,
            terms,
            delay: Duration::ZERO,
            queue_limit: None,
            key: None,
            fingerprint,
            owner: None,
            owner_label: None,
            trace: None,
        }
    }

    /// Sets [`id_chosen`](Self::id_chosen).
    #[must_use]
    pub fn id_chosen(self, id_chosen: bool) -> Self {
        Self { id_chosen, ..self }
    }

    /// Sets [`delay`](Self::delay).
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Sets [`queue_limit`](Self::queue_limit).
    #[must_use]
    pub fn queue_limit(self, limit: impl Into<Option<u64>>) -> Self {
        Self { queue_limit: limit.into(), ..self }
    }

    /// Sets [`key`](Self::key).
    #[must_use]
    pub fn key(self, key: impl Into<Option<IdempotencyKey>>) -> Self {
        Self { key: key.into(), ..self }
    }

    /// Sets [`owner`](Self::owner).
    #[must_use]
    pub fn owner(self, owner: impl Into<Option<Digest>>) -> Self {
        Self { owner: owner.into(), ..self }
    }

    /// Sets [`owner_label`](Self::owner_label).
    #[must_use]
    pub fn owner_label(self, label: impl Into<Option<String>>) -> Self {
        Self { owner_label: label.into(), ..self }
    }

    /// Sets [`trace`](Self::trace).
    #[must_use]
    pub fn trace(self, trace: impl Into<Option<TraceContext>>) -> Self {
        Self { trace: trace.into(), ..self }
    }

    /// The job as readers see it right after its insert.
    pub fn view(&self, created_at: Timestamp, version: u64, ahead: Option<u64>) -> JobView {
        let delayed = !self.delay.is_zero();
        JobView {
            id: self.id,
            name: self.name.clone(),
            status: if delayed { JobStatus::Scheduled } else { JobStatus::Queued },
            attempt: 0,
            retry_count: 0,
            loss_count: 0,
            release_count: 0,
            max_retries: self.terms.max_retries,
            priority: self.terms.priority,
            version,
            created_at,
            scheduled_at: delayed.then(|| created_at + self.delay),
            started_at: None,
            completed_at: None,
            last_updated_at: created_at,
            expires_at: None,
            cancel_requested_at: None,
            progress: None,
            result: None,
            error: None,
            attempts: Vec::new(),
            ahead,
            retry_of: None,
            retried_by: None,
            trace: self.trace.clone(),
            owner: self.owner,
            owner_label: self.owner_label.clone(),
        }
    }
}

/// The answer to a cancel.
#[derive(Clone, Debug, PartialEq)]
pub enum CancelOutcome {
    /// The job is Canceled.
    Canceled(Box<JobView>),
    /// The job runs. Its worker gets the request with the next renewal.
    Requested(Box<JobView>),
    /// The job had ended already.
    Terminal(Box<JobView>),
    /// The job has expired.
    Gone {
        /// Its owner.
        owner: Option<Digest>,
    },
    /// The id is unknown.
    NotFound,
}

/// The new values of a job that retries another.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryAs {
    /// Its id, made by the caller.
    pub id: JobId,
    /// The trace context of the operator's request.
    pub trace: Option<TraceContext>,
}

/// The answer to a retry.
#[derive(Clone, Debug, PartialEq)]
pub enum RetryOutcome {
    /// The new job.
    Created(Box<JobView>),
    /// The job was retried before. That new job.
    Existing(JobLookup),
    /// The job is neither Failed nor Canceled.
    NotEnded(JobStatus),
    /// The new id is taken.
    Conflict,
    /// The job has expired.
    Gone {
        /// Its owner.
        owner: Option<Digest>,
    },
    /// The id is unknown.
    NotFound,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn placement(owner: Option<u8>, name: &str, key: &str) -> u128 {
        let (owner, name) = (owner.map(|byte| Digest([byte; 32])), JobName::new(name).expect("a name"));
        let key = IdempotencyKey::new(key).expect("a key");
        let [first, second] = [(); 2].map(|()| JobId::for_key(owner.as_ref(), &name, &key));
        assert_ne!(first, second);
        assert_eq!((first.0.get_version_num(), first.0.as_u128() % 1024), (7, second.0.as_u128() % 1024));
        first.0.as_u128() % 1024
    }

    #[test]
    fn placement_follows_from_owner_type_and_key() {
        // These numbers must never change: jobs are placed by them.
        assert_eq!(
            [(None, "alpha"), (Some(1), "alpha"), (None, "beta")].map(|(owner, name)| placement(owner, name, "k")),
            [66, 561, 313]
        );
        let placements: BTreeSet<u128> =
            (0..1000).map(|number| placement(None, "alpha", &format!("key-{number}"))).collect();
        assert!((550..750).contains(&placements.len()), "1000 keys have {} of 1024 placements", placements.len());
    }
}
