//! Decodes rows of jobs and attempts.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, Progress, TraceContext, WorkerId},
    lifecycle,
    store::{Attempt, Filtered, JobLookup, Lease, LeaseToken},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    types::Types,
    value::{Columns, Read, StoredProgress, from_json},
};

/// A job, and the values of its row that readers do not see.
pub(crate) struct Record {
    /// The store's time.
    pub(crate) now: Timestamp,
    pub(crate) view: JobView,
    /// The order number of its acceptance.
    pub(crate) accepted: i64,
    /// The order number in its state.
    pub(crate) ord: i64,
    /// Since when it has its state.
    pub(crate) entered_at: Timestamp,
    pub(crate) type_number: i32,
    retention: Duration,
}

impl Record {
    /// Decodes a row of `view_v1`.
    pub(crate) fn read(row: &Row, types: &Types) -> Read<Self> {
        let mut columns = Columns::new(row);
        let _total: i32 = columns.read()?;
        let now = columns.time()?;
        let id = columns.job()?;
        let accepted = columns.read()?;
        let created_at = columns.time()?;
        let retention = Duration::from_micros(columns.large()?);
        let max_retries = columns.large()?;
        let type_number = columns.read()?;
        let priority = columns.priority()?;
        let owner = columns.maybe_digest()?;
        let owner_label = columns.read()?;
        let trace = trace(&mut columns)?;
        let retry_of = columns.maybe_job()?;
        let status = columns.status()?;
        let ord = columns.read()?;
        let entered_at = columns.time()?;
        let last_updated_at = columns.time()?;
        let scheduled_at = columns.maybe_time()?;
        let started_at = columns.maybe_time()?;
        let completed_at = columns.maybe_time()?;
        let expires_at = columns.maybe_time()?;
        let cancel_requested_at = columns.maybe_time()?;
        let version = columns.number()?.into();
        let attempt = columns.number()?;
        let retry_count = columns.number()?;
        let loss_count = columns.number()?;
        let release_count = columns.number()?;
        let worker = columns.maybe_worker()?;
        let retried_by = columns.maybe_job()?;
        let progress_at = columns.maybe_time()?;
        let progress = columns.read::<Option<&str>>()?.map(from_json).transpose()?;
        let error = columns.maybe_error()?;
        let result = columns.read::<Option<&[u8]>>()?.map(Bytes::copy_from_slice);
        let ahead = columns.read::<Option<i64>>()?.map(i64::unsigned_abs);
        let recorded = columns.read::<Option<&str>>()?.map(attempts).transpose()?.unwrap_or_default();
        let view = JobView {
            id,
            name: types.name(type_number)?,
            status,
            attempt,
            retry_count,
            loss_count,
            release_count,
            max_retries: u32::try_from(max_retries).unwrap_or(u32::MAX),
            priority,
            version,
            created_at,
            scheduled_at,
            started_at,
            completed_at,
            last_updated_at,
            expires_at,
            cancel_requested_at,
            progress: progress.zip(progress_at).map(|(progress, at)| dated(progress, at)),
            result,
            error,
            attempts: lifecycle::attempts(recorded, status, attempt, worker, started_at, completed_at),
            ahead,
            retry_of,
            retried_by,
            trace,
            owner,
            owner_label,
        };
        Ok(Self { now, view, accepted, ord, entered_at, type_number, retention })
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.view.expires_at.is_some_and(|at| at <= self.now)
    }

    /// The job as a reader finds it.
    pub(crate) fn lookup(self) -> JobLookup {
        let gone_until = lifecycle::gone_until(self.view.completed_at, self.retention);
        match gone_until {
            _ if !self.is_expired() => JobLookup::Found(Box::new(self.view)),
            Some(until) if self.now < until => JobLookup::Gone { owner: self.view.owner },
            _ => JobLookup::NotFound,
        }
    }

    /// The values that filters of a list compare.
    pub(crate) fn filtered(&self) -> Filtered<'_> {
        let JobView { id, owner, created_at, error, progress, .. } = &self.view;
        Filtered { id: *id, owner: *owner, created_at: *created_at, error: error.as_ref(), progress: progress.as_ref() }
    }
}

fn dated(progress: StoredProgress, updated_at: Timestamp) -> Progress {
    let StoredProgress { completed, total, percent, message } = progress;
    Progress { completed, total, percent, message, updated_at }
}

pub(crate) fn trace(columns: &mut Columns<'_>) -> Read<Option<TraceContext>> {
    let (parent, tracestate): (Option<&str>, Option<String>) = (columns.read()?, columns.read()?);
    let Some(parent) = parent else { return Ok(None) };
    let traceparent = parent.parse().map_err(|_| "invalid traceparent".to_owned())?;
    Ok(Some(TraceContext { traceparent, tracestate }))
}

/// An ended attempt as `view_v1` writes it: attempt, worker, start, end, outcome, error.
#[derive(Deserialize)]
struct StoredAttempt(u32, Option<Uuid>, i64, i64, usize, Option<String>);

fn attempts(text: &str) -> Read<Vec<AttemptRecord>> {
    let stored: Vec<StoredAttempt> = from_json(text)?;
    let record = |StoredAttempt(attempt, worker, started_at, ended_at, outcome, error)| {
        Ok(AttemptRecord {
            attempt,
            worker: worker.map(WorkerId),
            started_at: Timestamp::from_micros(started_at),
            ended_at: Some(Timestamp::from_micros(ended_at)),
            outcome: AttemptOutcome::ALL.get(outcome).copied(),
            error: error.as_deref().map(from_json).transpose()?,
        })
    };
    stored.into_iter().map(record).collect()
}

/// A claimed job: its attempt, or why the job is unreadable.
pub(crate) struct ClaimedJob {
    pub(crate) id: JobId,
    pub(crate) type_number: i32,
    /// 9 less the priority.
    pub(crate) rank: i16,
    /// Its order number, if it is claimed for the first time and was submitted without a delay.
    pub(crate) first_ord: Option<i64>,
    pub(crate) attempt: Read<Attempt>,
}

impl ClaimedJob {
    /// Decodes a row of `claim_v1`.
    pub(crate) fn read(row: &Row, token: LeaseToken, name: impl FnOnce(i32) -> Read<JobName>) -> Read<Self> {
        let mut columns = Columns::new(row);
        let now = columns.time()?;
        let _wait: Option<i64> = columns.read()?;
        let _promoted: Option<Vec<Uuid>> = columns.read()?;
        let (id, type_number, rank, first_ord) = (columns.job()?, columns.read()?, columns.read()?, columns.read()?);
        let attempt = attempt(&mut columns, Lease { job: id, token }, now, || name(type_number));
        Ok(Self { id, type_number, rank, first_ord, attempt })
    }
}

fn attempt(
    columns: &mut Columns<'_>,
    lease: Lease,
    started_at: Timestamp,
    name: impl FnOnce() -> Read<JobName>,
) -> Read<Attempt> {
    let attempt = columns.number()?;
    let retry_count = columns.number()?;
    let runnable_since = columns.time()?;
    let span: Option<&str> = columns.read()?;
    let Some(created_at) = columns.maybe_time()? else { return Err("its submission is missing".to_owned()) };
    Ok(Attempt {
        lease,
        name: name()?,
        attempt,
        retry_count,
        max_retries: u32::try_from(columns.large()?).unwrap_or(u32::MAX),
        priority: columns.priority()?,
        created_at,
        runnable_since,
        started_at,
        owner: columns.maybe_digest()?,
        owner_label: columns.read()?,
        trace: trace(columns)?,
        previous_span: span.map(|span| span.parse().map_err(|_| "invalid span".to_owned())).transpose()?,
        payload: Bytes::copy_from_slice(columns.read()?),
    })
}
