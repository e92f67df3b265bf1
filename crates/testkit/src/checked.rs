//! A decorator that records every answer. Must not judge answers: `invariants` does.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobStore, JobView, SharedState, Store, Timestamp, forward_store_calls,
    job::{Digest, ErrorRecord},
    store::{
        Attempt, CancelOutcome, Claim, Claimed, IdempotencyKey, InsertOutcome, JobLookup, Lease, ListFilter, ListPage,
        NewJob, Page, Reclaim, Reclaimed, Recovered, Result, RetryAs, RetryOutcome, Settled, Settlement,
    },
};
use async_trait::async_trait;
use bytes::Bytes;

/// A view of a job in an answer.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The tick before the call. The answer must not contradict calls that ended before.
    pub(crate) asked_at: u64,
    /// The tick after the answer.
    pub(crate) answered_at: u64,
    /// False in lists, which omit results.
    pub(crate) whole: bool,
    pub(crate) view: JobView,
}

/// A job that the store accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) created_at: Timestamp,
    /// None for the new job of a retry whose old job was not inserted through this decorator.
    pub(crate) retention: Option<Duration>,
    pub(crate) due: Option<Timestamp>,
}

/// The scope of a key.
pub(crate) type Key = (Option<Digest>, JobName, IdempotencyKey);

/// All recorded answers.
#[derive(Default)]
pub(crate) struct Record {
    tick: u64,
    pub(crate) accepted: BTreeMap<JobId, Accepted>,
    /// Keyed by acceptance too, since an id is free again once its job is forgotten.
    pub(crate) seen: BTreeMap<(JobId, Timestamp), Vec<Seen>>,
    /// Every job that an insert with a key returned.
    pub(crate) keys: Vec<(Key, JobId, Timestamp)>,
    pub(crate) claims: Vec<Attempt>,
    pub(crate) settled: Vec<(Lease, Settled)>,
    pub(crate) recovered: Vec<Recovered>,
}

impl Record {
    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn see(&mut self, asked_at: u64, view: &JobView, whole: bool) {
        let answered_at = self.tick();
        self.seen.entry((view.id, view.created_at)).or_default().push(Seen {
            asked_at,
            answered_at,
            whole,
            view: view.clone(),
        });
    }

    fn accept(&mut self, id: JobId, accepted: Accepted) {
        let known = self.accepted.entry(id).or_insert_with(|| accepted.clone());
        if known.created_at < accepted.created_at {
            *known = accepted;
        }
    }

    fn inserted(&mut self, asked_at: u64, job: &NewJob, answer: &InsertOutcome) {
        let (id, created_at) = match answer {
            InsertOutcome::Inserted { created_at, version, ahead } => {
                self.see(asked_at, &job.view(*created_at, *version, *ahead), true);
                (job.id, *created_at)
            }
            InsertOutcome::Existing(JobLookup::Found(view)) => {
                self.see(asked_at, view, true);
                (view.id, view.created_at)
            }
            InsertOutcome::Existing(_) | InsertOutcome::Conflict | InsertOutcome::Full => return,
        };
        if let Some(key) = &job.key {
            self.keys.push(((job.owner, job.name.clone(), key.clone()), id, created_at));
        }
        // A repeat with the same id is the same request, and its answer may arrive first.
        if id == job.id {
            let due = (!job.delay.is_zero()).then(|| created_at + job.delay);
            self.accept(id, Accepted { created_at, retention: Some(job.terms.retention), due });
        }
    }

    fn retried(&mut self, asked_at: u64, of: JobId, answer: &RetryOutcome) {
        let (RetryOutcome::Created(view) | RetryOutcome::Existing(JobLookup::Found(view))) = answer else { return };
        self.see(asked_at, view, true);
        let retention = self.accepted.get(&of).and_then(|job| job.retention);
        self.accept(view.id, Accepted { created_at: view.created_at, retention, due: None });
    }
}

/// Records every answer of a store. [`verify`](Self::verify) then finds contradictions to the contract.
/// Transparent, and usable from many tasks at once.
pub struct Checked<S> {
    pub(crate) inner: S,
    record: Mutex<Record>,
}

impl<S: Store> Checked<S> {
    /// A decorator around this store.
    pub fn new(inner: S) -> Self {
        Self { inner, record: Mutex::default() }
    }

    pub(crate) fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_tick(&self) -> u64 {
        self.record().tick()
    }

    fn see(&self, asked_at: u64, view: &JobView) {
        self.record().see(asked_at, view, true);
    }
}

#[async_trait]
impl<S: Store> JobStore for Checked<S> {
    async fn insert(&self, job: NewJob) -> Result<InsertOutcome> {
        let asked_at = self.next_tick();
        let answer = self.inner.insert(job.clone()).await?;
        self.record().inserted(asked_at, &job, &answer);
        Ok(answer)
    }

    async fn get(&self, id: JobId) -> Result<JobLookup> {
        let asked_at = self.next_tick();
        let answer = self.inner.get(id).await?;
        if let JobLookup::Found(view) = &answer {
            self.see(asked_at, view);
        }
        Ok(answer)
    }

    async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let asked_at = self.next_tick();
        let answer = self.inner.list(filter, page).await?;
        let mut record = self.record();
        for view in &answer.jobs {
            record.see(asked_at, view, false);
        }
        drop(record);
        Ok(answer)
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let answer = self.inner.claim(claim).await?;
        // Payloads are not checked, and may be large.
        let taken = answer.attempts.iter().map(|attempt| Attempt { payload: Bytes::new(), ..attempt.clone() });
        self.record().claims.extend(taken);
        Ok(answer)
    }

    async fn settle(&self, settles: &[Settlement]) -> Result<Vec<Settled>> {
        let answer = self.inner.settle(settles).await?;
        let pairs = settles.iter().map(|settle| settle.lease).zip(answer.iter().copied());
        self.record().settled.extend(pairs);
        Ok(answer)
    }

    async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let asked_at = self.next_tick();
        let answer = self.inner.cancel(id, error).await?;
        if let CancelOutcome::Canceled(view) | CancelOutcome::Requested(view) | CancelOutcome::Terminal(view) = &answer
        {
            self.see(asked_at, view);
        }
        Ok(answer)
    }

    async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let asked_at = self.next_tick();
        let answer = self.inner.retry(id, new).await?;
        self.record().retried(asked_at, id, &answer);
        Ok(answer)
    }

    async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let answer = self.inner.reclaim(reclaim).await?;
        if let Reclaimed::Done { recovered, .. } = &answer {
            self.record().recovered.extend(recovered.iter().cloned());
        }
        Ok(answer)
    }

    forward_store_calls!(self => self.inner; versions, logs, payload, stats, renew, report, prune, probe, health, hints, kind);
}

#[async_trait]
impl<S: Store> SharedState for Checked<S> {
    forward_store_calls!(self => self.inner; shared_calls);
}
