//! Lookups that readers and the writer share: a job by its id, its view, or its tombstone.

use async_endpoints_core::{
    JobId, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, Digest},
    lifecycle,
    limits::AHEAD_COUNTED,
    store::{JobLookup, WorkerId},
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use crate::{
    column::from_json,
    failure::Failure,
    job::{COLUMNS, Job},
    score::{PRIORITY_SPAN, queued_score},
    types::{Counts, Types, queued_of},
};

/// The record of a job that was deleted after its retention.
pub(crate) struct Tombstone {
    pub(crate) owner: Option<Digest>,
    pub(crate) fingerprint: Digest,
    pub(crate) gone_until: Timestamp,
}

/// The job with this id, expired or not.
pub(crate) fn find(conn: &Connection, id: JobId) -> Result<Option<Job>, Failure> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
    let found = find.query_row([id.0.as_bytes()], |row| Ok(Job::read(row))).optional()?;
    found.transpose().map_err(Failure::Unreadable)
}

/// The job of a seq, or why its row is unreadable.
pub(crate) fn load(conn: &Connection, seq: i64) -> Result<Option<Result<Job, String>>, Failure> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE seq = ?1"))?;
    Ok(find.query_row([seq], |row| Ok(Job::read(row))).optional()?)
}

/// The job with this id, unless it has expired.
pub(crate) fn unexpired(conn: &Connection, id: JobId, now: Timestamp) -> Result<Option<Job>, Failure> {
    Ok(find(conn, id)?.filter(|job| !job.is_expired(now)))
}

pub(crate) fn find_tombstone(conn: &Connection, id: JobId) -> Result<Option<Tombstone>, Failure> {
    let mut find = conn.prepare_cached("SELECT owner, fingerprint, gone_until FROM tombstones WHERE id = ?1")?;
    let found = find.query_row([id.0.as_bytes()], |row| {
        Ok(Tombstone {
            owner: row.get::<_, Option<[u8; 32]>>(0)?.map(Digest),
            fingerprint: Digest(row.get(1)?),
            gone_until: Timestamp::from_micros(row.get(2)?),
        })
    });
    Ok(found.optional()?)
}

/// Owner and fingerprint of the job or tombstone with this id.
pub(crate) fn identity(conn: &Connection, id: JobId) -> Result<Option<(Option<Digest>, Digest)>, Failure> {
    let mut find = conn.prepare_cached("SELECT owner, fingerprint FROM jobs WHERE id = ?1")?;
    let found = find
        .query_row([id.0.as_bytes()], |row| Ok((row.get::<_, Option<[u8; 32]>>(0)?.map(Digest), Digest(row.get(1)?))));
    match found.optional()? {
        Some(identity) => Ok(Some(identity)),
        None => Ok(find_tombstone(conn, id)?.map(|tombstone| (tombstone.owner, tombstone.fingerprint))),
    }
}

pub(crate) fn lookup(
    conn: &Connection,
    types: &mut impl Types,
    id: JobId,
    now: Timestamp,
) -> Result<JobLookup, Failure> {
    let (owner, until) = match find(conn, id)? {
        Some(job) if !job.is_expired(now) => return Ok(JobLookup::Found(Box::new(view(conn, types, job, true)?))),
        Some(job) => (job.owner, job.gone_until()),
        None => match find_tombstone(conn, id)? {
            Some(tombstone) => (tombstone.owner, Some(tombstone.gone_until)),
            None => return Ok(JobLookup::NotFound),
        },
    };
    let gone = until.is_some_and(|until| now < until);
    Ok(if gone { JobLookup::Gone { owner } } else { JobLookup::NotFound })
}

/// The job as a reader sees it. Without `whole`, the result and the number of jobs ahead are left out.
pub(crate) fn view(conn: &Connection, types: &mut impl Types, job: Job, whole: bool) -> Result<JobView, Failure> {
    let result = if whole && job.status == JobStatus::Completed { result(conn, job.seq)? } else { None };
    let ahead = if whole { ahead(conn, &job, &types.counts(conn, job.type_id)?)? } else { None };
    Ok(JobView {
        id: job.id,
        trace: job.trace(),
        name: types.name(conn, job.type_id)?,
        status: job.status,
        attempt: job.attempt,
        retry_count: job.retries,
        loss_count: job.losses,
        release_count: job.releases,
        max_retries: job.max_retries,
        priority: job.priority,
        version: job.version.unsigned_abs(),
        created_at: job.created_at,
        scheduled_at: job.due,
        started_at: job.started_at,
        completed_at: job.ended_at,
        last_updated_at: job.updated_at,
        expires_at: job.expires_at(),
        cancel_requested_at: job.cancel_requested_at,
        result,
        attempts: attempts(conn, &job)?,
        ahead,
        progress: job.progress,
        error: job.error,
        retry_of: job.retry_of,
        retried_by: job.retried_by,
        owner: job.owner,
        owner_label: job.owner_label,
    })
}

fn result(conn: &Connection, seq: i64) -> Result<Option<Bytes>, Failure> {
    bytes(conn, "SELECT format, bytes FROM results WHERE seq = ?1", seq)?.transpose().map_err(Failure::Unreadable)
}

/// A job's payload, or why it is unreadable.
pub(crate) fn payload(conn: &Connection, seq: i64) -> Result<Result<Bytes, String>, Failure> {
    let found = bytes(conn, "SELECT format, bytes FROM payloads WHERE seq = ?1", seq)?;
    Ok(found.unwrap_or_else(|| Err("the job has no payload".to_owned())))
}

fn bytes(conn: &Connection, sql: &str, seq: i64) -> Result<Option<Result<Bytes, String>>, Failure> {
    let found = conn.prepare_cached(sql)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.map(|(format, bytes): (i64, Vec<u8>)| match format {
        1 => Ok(bytes.into()),
        other => Err(format!("unknown format {other} of a payload or result: expected 1")),
    }))
}

/// Jobs ahead of a queued job that is the last of its priority, as a new job is.
pub(crate) fn ahead_of_last(job: &Job, counts: &Counts) -> Option<u64> {
    let ahead = counts[queued_of(job.priority)..].iter().sum::<i64>() - 1;
    (job.status == JobStatus::Queued).then(|| u64::try_from(ahead).unwrap_or(0))
}

/// Jobs ahead of a queued job: from the counts for the last job of a priority, else counted up to a limit.
pub(crate) fn ahead(conn: &Connection, job: &Job, counts: &Counts) -> Result<Option<u64>, Failure> {
    if job.status != JobStatus::Queued {
        return Ok(None);
    }
    let (score, id, priority) = (job.score(), job.id.0.as_bytes(), job.priority);
    let end = queued_score(priority, 0) + PRIORITY_SPAN;
    let mut behind = conn.prepare_cached(
        "SELECT 1 FROM jobs WHERE status = 0 AND type_id = ?1 AND (score, id) > (?2, ?3) AND score < ?4 LIMIT 1",
    )?;
    if !behind.exists(params![job.type_id, score, id, end])? {
        return Ok(ahead_of_last(job, counts));
    }
    let mut before = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 0 AND type_id = ?1 AND (score, id) < (?2, ?3) \
         LIMIT ?4)",
    )?;
    let ahead: i64 = before.query_row(params![job.type_id, score, id, AHEAD_COUNTED as i64], |row| row.get(0))?;
    Ok(Some(u64::try_from(ahead).unwrap_or(0)))
}

/// Ended attempts and the running one. The record of a job that completed at its first attempt, as most do, is derived.
fn attempts(conn: &Connection, job: &Job) -> Result<Vec<AttemptRecord>, Failure> {
    let mut attempts = Vec::new();
    if job.attempt > 1 || job.attempt == 1 && job.status != JobStatus::Completed {
        let mut find = conn.prepare_cached(
            "SELECT attempt, started_at, ended_at, outcome, error, worker FROM attempts WHERE seq = ?1 ORDER BY attempt",
        )?;
        let mut rows = find.query([job.seq])?;
        while let Some(row) = rows.next()? {
            let (outcome, error): (i64, Option<String>) = (row.get(3)?, row.get(4)?);
            attempts.push(AttemptRecord {
                attempt: row.get(0)?,
                worker: row.get::<_, Option<[u8; 16]>>(5)?.map(|id| WorkerId(Uuid::from_bytes(id))),
                started_at: Timestamp::from_micros(row.get(1)?),
                ended_at: Some(Timestamp::from_micros(row.get(2)?)),
                outcome: usize::try_from(outcome).ok().and_then(|outcome| AttemptOutcome::ALL.get(outcome)).copied(),
                error: error.map(|error| from_json(error.as_bytes())).transpose().map_err(Failure::Unreadable)?,
            });
        }
    }
    Ok(lifecycle::attempts(attempts, job.status, job.attempt, job.worker, job.started_at, job.ended_at))
}
