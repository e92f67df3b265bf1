//! Combines concurrent inserts into one call, because a call costs more than the insert in it. No insert waits for others:
//! inserts that arrive while calls are under way make up the next call.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use async_endpoints_core::{
    JobId, StoreError,
    limits::{BATCH_BYTES, BATCH_JOBS},
    store::{InsertOutcome, JobLookup, NewJob, Result},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    calls::Calls,
    link::Lane,
    long_lanes::lane,
    places::Places,
    value::{Columns, answer, clean, micros},
};

/// Concurrent calls: the server runs one while the next travels.
const CALLS: usize = 2;
/// Capacity of the queue in KiB. Callers wait while it is full.
const CAPACITY: u32 = 64 * 1024;

const INSERT: &str = "SELECT * FROM ae.insert_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";

/// Hands inserts to the [`Batcher`].
pub(crate) struct Inserts {
    send: mpsc::UnboundedSender<Pending>,
    capacity: Arc<Semaphore>,
}

/// Makes the calls.
pub(crate) struct Batcher {
    receive: mpsc::UnboundedReceiver<Pending>,
    /// The insert that did not fit into the call before.
    next: Option<Pending>,
}

struct Pending {
    job: NewJob,
    type_number: i32,
    answer: oneshot::Sender<Result<Answered>>,
    _capacity: OwnedSemaphorePermit,
}

/// The answer of `insert_v1`.
enum Answered {
    Done(InsertOutcome),
    /// The same request was accepted before, as this job.
    Existing(JobId),
}

pub(crate) fn new() -> (Inserts, Batcher) {
    let (send, receive) = mpsc::unbounded_channel();
    let capacity = Arc::new(Semaphore::new(CAPACITY as usize));
    (Inserts { send, capacity }, Batcher { receive, next: None })
}

fn closed<T>(_: T) -> StoreError {
    StoreError::Unavailable("the store's task has ended".to_owned())
}

/// Bytes that an insert holds in memory, without a large value's own overhead.
fn size(job: &NewJob) -> usize {
    job.payload.len() + 512
}

impl Inserts {
    /// Inserts a job. A caller that drops the future before the call begins inserts nothing.
    pub(crate) async fn insert(&self, calls: &Calls, job: NewJob) -> Result<InsertOutcome> {
        let type_number = calls.types.number(&calls.link, &calls.schema, &job.name).await?;
        let kibibytes = u32::try_from(size(&job) / 1024 + 1).unwrap_or(CAPACITY).min(CAPACITY);
        let capacity = Arc::clone(&self.capacity).acquire_many_owned(kibibytes).await.map_err(closed)?;
        let (answer, answered) = oneshot::channel();
        let owner = job.owner;
        self.send.send(Pending { job, type_number, answer, _capacity: capacity }).map_err(closed)?;
        match answered.await.unwrap_or_else(|dropped| Err(closed(dropped)))? {
            Answered::Done(outcome) => Ok(outcome),
            Answered::Existing(id) => Ok(InsertOutcome::Existing(match calls.lookup(id).await? {
                // The record outlives the time in which readers get "gone", so that a repeat never runs again.
                JobLookup::NotFound => JobLookup::Gone { owner },
                lookup => lookup,
            })),
        }
    }
}

impl Batcher {
    /// Runs until the [`Inserts`] is dropped.
    pub(crate) async fn run(mut self, calls: Weak<Calls>) {
        let permits = Arc::new(Permits::default());
        while let Some(first) = self.first().await {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits.calls).acquire_owned().await else { return };
            // The last answers woke many callers. Those that insert again at once join this call.
            tokio::task::yield_now().await;
            let batch = self.batch(first);
            if batch.is_empty() {
                continue;
            }
            let Some(calls) = calls.upgrade() else { return };
            let permits = Arc::clone(&permits);
            tokio::spawn(async move {
                let Err(locked) = insert(batch, &calls, false).await else { return };
                // An id that no caller chose is new, so that no other transaction holds it.
                let is_repeatable = |pending: &Pending| pending.job.key.is_some() || pending.job.id_chosen;
                let (repeatable, others) = locked.batch.into_iter().partition(is_repeatable);
                if let Err(locked) = insert(others, &calls, false).await {
                    refuse(locked.batch, &locked.error);
                }
                drop(permit);
                insert_apart(repeatable, &calls, &permits).await;
            });
        }
    }

    async fn first(&mut self) -> Option<Pending> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.receive.recv().await,
        }
    }

    /// The first insert and as many queued ones as a call takes, without those whose callers have left. One call has each id
    /// once.
    fn batch(&mut self, first: Pending) -> Vec<Pending> {
        let mut bytes = size(&first.job);
        let mut batch = vec![first];
        batch.retain(|pending| !pending.answer.is_closed());
        while batch.len() < BATCH_JOBS {
            let Ok(next) = self.receive.try_recv() else { break };
            if next.answer.is_closed() {
                continue;
            }
            bytes += size(&next.job);
            let is_known = batch.iter().any(|other| other.job.id == next.job.id);
            if !batch.is_empty() && (is_known || bytes > BATCH_BYTES) {
                self.next = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

/// The jobs of a call that did not get a lock, such as that of a key which an open transaction uses.
struct Locked {
    batch: Vec<Pending>,
    error: StoreError,
}

/// Inserts the jobs whose callers still wait, with one call, and answers them. A patient call waits for a lock as long as any
/// statement.
///
/// # Errors
/// The call did not get a lock, and nothing is answered.
async fn insert(mut batch: Vec<Pending>, calls: &Calls, patient: bool) -> std::result::Result<(), Locked> {
    batch.retain(|pending| !pending.answer.is_closed());
    if batch.is_empty() {
        return Ok(());
    }
    match insert_all(&batch, calls, patient).await {
        Ok(answers) => {
            for (pending, answer) in batch.into_iter().zip(answers) {
                drop(pending.answer.send(answer));
            }
        }
        Err(Failed { is_locked: true, error }) => return Err(Locked { batch, error }),
        Err(Failed { error, .. }) => refuse(batch, &error),
    }
    Ok(())
}

fn refuse(batch: Vec<Pending>, error: &StoreError) {
    for pending in batch {
        drop(pending.answer.send(Err(copy(error))));
    }
}

/// Inserts the jobs of a call that met a held key or id: in halves, until each held job is alone and can wait. Other calls go on
/// meanwhile.
async fn insert_apart(batch: Vec<Pending>, calls: &Calls, permits: &Permits) {
    let (mut locked, mut held) = (vec![batch], Vec::new());
    let search = permits.searches.acquire().await;
    while let Some(mut batch) = locked.pop() {
        if batch.len() == 1 {
            held.append(&mut batch);
            continue;
        }
        let half = batch.split_off(batch.len() / 2);
        for half in [batch, half] {
            let _permit = permits.calls.acquire().await;
            locked.extend(insert(half, calls, false).await.err().map(|locked| locked.batch));
        }
    }
    drop(search);
    for pending in held {
        let _permits = (permits.waits.acquire().await, permits.calls.acquire().await);
        if let Err(locked) = insert(vec![pending], calls, true).await {
            refuse(locked.batch, &locked.error);
        }
    }
}

/// What may be under way at the same time.
struct Permits {
    calls: Arc<Semaphore>,
    /// Searches for the held jobs of a call.
    searches: Semaphore,
    /// Waits for the end of a transaction. One less than calls, so that others can be made.
    waits: Semaphore,
}

impl Default for Permits {
    fn default() -> Self {
        Self { calls: Arc::new(Semaphore::new(CALLS)), searches: Semaphore::new(1), waits: Semaphore::new(CALLS - 1) }
    }
}

/// Why a call inserted nothing.
struct Failed {
    error: StoreError,
    /// Whether an open transaction holds a key or an id.
    is_locked: bool,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { error, is_locked: false }
    }
}

/// The same error for another caller.
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(reason) => StoreError::Unavailable(reason.clone()),
        StoreError::Unreadable(reason) => StoreError::Unreadable(reason.clone()),
        StoreError::Corrupt(reason) => StoreError::Corrupt(reason.clone()),
        StoreError::Backend { source } => StoreError::Backend { source: source.to_string().into() },
    }
}

/// The queue limit of each insert, or none if it needs no check. Inserts of one type are checked together.
fn limits(batch: &[Pending], places: &Places) -> impl Iterator<Item = Option<i64>> {
    let mut checked: Vec<i32> = batch.iter().map(|pending| pending.type_number).collect();
    checked.sort_unstable();
    checked.dedup();
    checked.retain(|of_type| {
        let of_type_only = batch.iter().filter(|pending| pending.type_number == *of_type);
        let limits = of_type_only.filter_map(|pending| pending.job.queue_limit);
        let count = limits.clone().count() as u64;
        limits.min().is_some_and(|lowest| !places.take(*of_type, lowest, count))
    });
    batch.iter().map(move |pending| {
        let limit = pending.job.queue_limit.filter(|_| checked.contains(&pending.type_number))?;
        Some(i64::try_from(limit).unwrap_or(i64::MAX))
    })
}

/// The values, or `None` if all are null. The server reads an array with nulls from its start for each element.
fn unless_all_null<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<Option<T>>> {
    let values: Vec<Option<T>> = values.collect();
    values.iter().any(Option::is_some).then_some(values)
}

async fn insert_all(
    batch: &[Pending],
    calls: &Calls,
    patient: bool,
) -> std::result::Result<Vec<Result<Answered>>, Failed> {
    let jobs = || batch.iter().map(|pending| &pending.job);
    let ids: Vec<Uuid> = jobs().map(|job| job.id.0).collect();
    let types: Vec<i32> = batch.iter().map(|pending| pending.type_number).collect();
    let priorities: Vec<i16> = jobs().map(|job| job.terms.priority.get().into()).collect();
    let payloads: Vec<&[u8]> = jobs().map(|job| job.payload.as_ref()).collect();
    let fingerprints: Vec<&[u8]> = jobs().map(|job| job.fingerprint.0.as_slice()).collect();
    let owners = unless_all_null(jobs().map(|job| job.owner.as_ref().map(|owner| owner.0.as_slice())));
    let labels = unless_all_null(jobs().map(|job| job.owner_label.as_deref().map(clean)));
    let keys = unless_all_null(jobs().map(|job| job.key.as_ref().map(|key| key.as_str())));
    let repeatables: Vec<bool> = jobs().map(|job| job.id_chosen || job.key.is_some()).collect();
    let delays: Vec<i64> = jobs().map(|job| micros(job.delay)).collect();
    // A check would hold the lock of its type during the wait.
    let limits = if patient { None } else { unless_all_null(limits(batch, &calls.places)) };
    let retentions: Vec<i64> = jobs().map(|job| micros(job.terms.retention)).collect();
    let retries: Vec<i64> = jobs().map(|job| job.terms.max_retries.into()).collect();
    let losses: Vec<i64> = jobs().map(|job| job.terms.max_losses.into()).collect();
    let parents = unless_all_null(jobs().map(|job| Some(job.trace.as_ref()?.traceparent.to_string())));
    let states = unless_all_null(jobs().map(|job| job.trace.as_ref()?.tracestate.as_deref().map(clean)));
    let mut bounded = types.clone();
    bounded.sort_unstable();
    bounded.dedup();
    let bounds = calls.lanes.of(&bounded);
    let began = Instant::now();
    let long = calls.long_lanes.known(began);
    let rows = calls
        .link
        .try_query(
            Lane::Submit,
            &calls.schema.sql(INSERT),
            &[
                (&ids, Type::UUID_ARRAY),
                (&types, Type::INT4_ARRAY),
                (&priorities, Type::INT2_ARRAY),
                (&payloads, Type::BYTEA_ARRAY),
                (&fingerprints, Type::BYTEA_ARRAY),
                (&owners, Type::BYTEA_ARRAY),
                (&labels, Type::TEXT_ARRAY),
                (&keys, Type::TEXT_ARRAY),
                (&repeatables, Type::BOOL_ARRAY),
                (&delays, Type::INT8_ARRAY),
                (&limits, Type::INT8_ARRAY),
                (&retentions, Type::INT8_ARRAY),
                (&retries, Type::INT8_ARRAY),
                (&losses, Type::INT8_ARRAY),
                (&parents, Type::TEXT_ARRAY),
                (&states, Type::TEXT_ARRAY),
                (&bounded, Type::INT4_ARRAY),
                (&bounds, Type::INT8_ARRAY),
                (&long, Type::INT8_ARRAY),
                (&patient, Type::BOOL),
            ],
        )
        .await;
    let rows = rows.map_err(|fail| Failed { is_locked: fail.is_lock(), error: calls.link.error(fail) })?;
    let mut answers: Vec<Result<Answered>> =
        batch.iter().map(|_| Err(StoreError::Corrupt("the server did not answer an insert".to_owned()))).collect();
    let mut runnable = Vec::new();
    for row in &rows {
        let mut columns = Columns::new(row);
        let number: i32 = answer(columns.read())?;
        let kind: i16 = answer(columns.read())?;
        let created_at = answer(columns.time())?;
        let ahead = answer(columns.read::<Option<i64>>())?.map(i64::unsigned_abs);
        let other: Option<Uuid> = answer(columns.read())?;
        if kind == 4 {
            calls.places.checked(number, ahead.unwrap_or(u64::MAX));
            continue;
        }
        let place = number.unsigned_abs() as usize - 1;
        answers[place] = Ok(match (kind, other) {
            (0, _) => Answered::Done(InsertOutcome::Inserted { created_at, version: 1, ahead }),
            (1, Some(id)) => Answered::Existing(JobId(id)),
            (3, _) => Answered::Done(InsertOutcome::Full),
            _ => Answered::Done(InsertOutcome::Conflict),
        });
        let Pending { job, type_number, .. } = &batch[place];
        if let (0, Some(ahead)) = (kind, ahead) {
            calls.long_lanes.counted(lane(*type_number, job.terms.priority), ahead, began, &long);
            if !runnable.contains(&job.name) {
                runnable.push(job.name.clone());
            }
        }
    }
    calls.wrote();
    calls.hints.publish(&runnable, &[]);
    Ok(answers)
}
