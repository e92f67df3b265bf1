//! What readers and the writer look up alike: a job by its id, as a view, or what is left of it.

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, Digest},
    limits::{AHEAD_COUNTED, ATTEMPTS_KEPT},
    store::JobLookup,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    fail::Fail,
    job::{COLUMNS, Job, from_json},
    ledger::{Counts, queued_of},
    order::{PRIORITY_SPAN, ready_score},
};

/// What is known of types: by the writer, or by a reader.
pub(crate) trait Kinds {
    fn name(&mut self, conn: &Connection, kind: i64) -> Result<JobName, Fail>;
    fn counts(&mut self, conn: &Connection, kind: i64) -> Result<Counts, Fail>;
}

/// What is left of a job after its retention.
pub(crate) struct Tomb {
    pub(crate) owner: Option<Digest>,
    pub(crate) fingerprint: Digest,
    pub(crate) gone_until: Timestamp,
}

/// The job of an id, expired or not.
pub(crate) fn find(conn: &Connection, id: JobId) -> Result<Option<Job>, Fail> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
    let found = find.query_row([id.0.as_bytes()], |row| Ok(Job::read(row))).optional()?;
    found.transpose().map_err(Fail::Bad)
}

/// The job at a place that an index named; why not, if it cannot be read. None if there is none, which damage may leave.
pub(crate) fn load(conn: &Connection, seq: i64) -> Result<Option<Result<Job, String>>, Fail> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE seq = ?1"))?;
    Ok(find.query_row([seq], |row| Ok(Job::read(row))).optional()?)
}

/// The job, unless it is unknown or past its retention.
pub(crate) fn readable(conn: &Connection, id: JobId, now: Timestamp) -> Result<Option<Job>, Fail> {
    Ok(find(conn, id)?.filter(|job| !job.expired(now)))
}

pub(crate) fn tomb(conn: &Connection, id: JobId) -> Result<Option<Tomb>, Fail> {
    let mut find = conn.prepare_cached("SELECT owner, fingerprint, gone_until FROM tombstones WHERE id = ?1")?;
    let found = find.query_row([id.0.as_bytes()], |row| {
        Ok(Tomb {
            owner: row.get::<_, Option<[u8; 32]>>(0)?.map(Digest),
            fingerprint: Digest(row.get(1)?),
            gone_until: Timestamp::from_micros(row.get(2)?),
        })
    });
    Ok(found.optional()?)
}

/// Whose a known id is, and by which request.
pub(crate) fn identity(conn: &Connection, id: JobId) -> Result<Option<(Option<Digest>, Digest)>, Fail> {
    let mut find = conn.prepare_cached("SELECT owner, fingerprint FROM jobs WHERE id = ?1")?;
    let found = find
        .query_row([id.0.as_bytes()], |row| Ok((row.get::<_, Option<[u8; 32]>>(0)?.map(Digest), Digest(row.get(1)?))));
    match found.optional()? {
        Some(identity) => Ok(Some(identity)),
        None => Ok(tomb(conn, id)?.map(|tomb| (tomb.owner, tomb.fingerprint))),
    }
}

pub(crate) fn lookup(conn: &Connection, kinds: &mut impl Kinds, id: JobId, now: Timestamp) -> Result<JobLookup, Fail> {
    let (owner, until) = match find(conn, id)? {
        Some(job) if !job.expired(now) => return Ok(JobLookup::Found(Box::new(view(conn, kinds, job, true)?))),
        Some(job) => (job.owner, job.gone_until()),
        None => match tomb(conn, id)? {
            Some(tomb) => (tomb.owner, Some(tomb.gone_until)),
            None => return Ok(JobLookup::NotFound),
        },
    };
    let told = until.is_some_and(|until| now < until);
    Ok(if told { JobLookup::Gone { owner } } else { JobLookup::NotFound })
}

/// The job as a reader sees it.
pub(crate) fn view(conn: &Connection, kinds: &mut impl Kinds, job: Job, whole: bool) -> Result<JobView, Fail> {
    let result = if whole && job.status == JobStatus::Completed { result(conn, job.seq)? } else { None };
    let ahead = if whole { ahead(conn, &job, &kinds.counts(conn, job.kind)?)? } else { None };
    Ok(JobView {
        id: job.id,
        name: kinds.name(conn, job.kind)?,
        status: job.status,
        attempt: job.attempt,
        retry_count: job.retries,
        loss_count: job.losses,
        release_count: job.releases,
        max_retries: job.terms.max_retries,
        priority: job.terms.priority,
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
        trace: job.trace,
        owner: job.owner,
    })
}

fn result(conn: &Connection, seq: i64) -> Result<Option<Bytes>, Fail> {
    bytes(conn, "SELECT format, bytes FROM results WHERE seq = ?1", seq)?.transpose().map_err(Fail::Bad)
}

/// A payload; why not, if it cannot be read.
pub(crate) fn payload(conn: &Connection, seq: i64) -> Result<Result<Bytes, String>, Fail> {
    let found = bytes(conn, "SELECT format, bytes FROM payloads WHERE seq = ?1", seq)?;
    Ok(found.unwrap_or_else(|| Err("it has no payload".to_owned())))
}

fn bytes(conn: &Connection, sql: &str, seq: i64) -> Result<Option<Result<Bytes, String>>, Fail> {
    let found = conn.prepare_cached(sql)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.map(|(format, bytes): (i64, Vec<u8>)| match format {
        1 => Ok(bytes.into()),
        other => Err(format!("bytes of format {other} are not known here")),
    }))
}

/// Jobs that go before a queued one that is the last of its priority, as a new job is.
pub(crate) fn ahead_of_last(job: &Job, counts: &Counts) -> Option<u64> {
    let ahead = counts[queued_of(job.terms.priority)..].iter().sum::<i64>() - 1;
    (job.status == JobStatus::Queued).then(|| u64::try_from(ahead).unwrap_or(0))
}

/// Jobs that go before a queued one: exact for the last of its priority; else counted.
pub(crate) fn ahead(conn: &Connection, job: &Job, counts: &Counts) -> Result<Option<u64>, Fail> {
    if job.status != JobStatus::Queued {
        return Ok(None);
    }
    let (score, id, priority) = (job.score(), job.id.0.as_bytes(), job.terms.priority);
    let end = ready_score(priority, 0) + PRIORITY_SPAN;
    let mut behind = conn.prepare_cached(
        "SELECT 1 FROM jobs WHERE status = 0 AND type = ?1 AND (score, id) > (?2, ?3) AND score < ?4 LIMIT 1",
    )?;
    if !behind.exists(params![job.kind, score, id, end])? {
        return Ok(ahead_of_last(job, counts));
    }
    let mut before = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 0 AND type = ?1 AND (score, id) < (?2, ?3) \
         LIMIT ?4)",
    )?;
    let ahead: i64 = before.query_row(params![job.kind, score, id, AHEAD_COUNTED as i64], |row| row.get(0))?;
    Ok(Some(u64::try_from(ahead).unwrap_or(0)))
}

/// Ended attempts and the running one. A job that completed at its first attempt, as most do, has its only record
/// derived rather than kept.
fn attempts(conn: &Connection, job: &Job) -> Result<Vec<AttemptRecord>, Fail> {
    let mut attempts = Vec::new();
    if job.attempt > 1 || job.attempt == 1 && job.status != JobStatus::Completed {
        let mut find = conn.prepare_cached(
            "SELECT attempt, started_at, ended_at, outcome, error FROM attempts WHERE seq = ?1 ORDER BY attempt",
        )?;
        let mut rows = find.query([job.seq])?;
        while let Some(row) = rows.next()? {
            let (outcome, error): (i64, Option<String>) = (row.get(3)?, row.get(4)?);
            attempts.push(AttemptRecord {
                attempt: row.get(0)?,
                started_at: Timestamp::from_micros(row.get(1)?),
                ended_at: Some(Timestamp::from_micros(row.get(2)?)),
                outcome: usize::try_from(outcome).ok().and_then(|outcome| AttemptOutcome::ALL.get(outcome)).copied(),
                error: error.map(|error| from_json(error.as_bytes())).transpose().map_err(Fail::Bad)?,
            });
        }
    }
    let unbooked = job.attempt > 0 && attempts.last().is_none_or(|last| last.attempt < job.attempt);
    if let (true, Some(started_at)) = (unbooked, job.started_at) {
        let completed = job.status == JobStatus::Completed;
        attempts.push(AttemptRecord {
            attempt: job.attempt,
            started_at,
            ended_at: job.ended_at,
            outcome: completed.then_some(AttemptOutcome::Completed),
            error: None,
        });
    }
    attempts.drain(..attempts.len().saturating_sub(ATTEMPTS_KEPT));
    Ok(attempts)
}
