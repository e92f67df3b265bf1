//! Calls of workers: claim, renew, report, settle. Every write is guarded by the lease.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    lifecycle::{self, Event},
    limits::{BATCH_JOBS, LOG_BYTES_PER_JOB, SWEEP_JOBS},
    store::{
        Attempt, Claim, Claimed, Fenced, Heartbeat, Lease, Outcome, Renewed, Report, Settled, Settlement, TypeCapacity,
        WorkerSlots,
    },
};
use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::{
    fail::Fail,
    job::{Job, json},
    order::order_at,
    state::{End, State},
    view,
};

/// A type that a claim wants: how many are left to take, and how long an attempt may run.
struct Wanted {
    kind: i64,
    name: JobName,
    left: u32,
    timeout: Duration,
}

/// What goes when a job has completed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clear {
    Payload,
    /// Its payload could not be deleted, which is no reason not to end it.
    Nothing,
}

/// A place in the order of a state: score and id, the wanted type's number, and the job's seq.
type Head = (i64, [u8; 16], usize, i64);

/// An id that is none is seen when its job is read.
fn head(row: &rusqlite::Row<'_>, want: usize) -> rusqlite::Result<Head> {
    Ok((row.get(0)?, row.get(1).unwrap_or_default(), want, row.get(2)?))
}

impl State {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Result<Claimed, Fail> {
        let mut wanted = self.wanted(claim)?;
        self.promote(&wanted)?;
        let mut attempts = Vec::new();
        let mut bytes = 0;
        let most = BATCH_JOBS.min(claim.max as usize);
        for (.., want, seq) in self.heads(JobStatus::Queued, &wanted, most)? {
            if attempts.len() == most || wanted[want].left == 0 {
                continue;
            }
            let Some(mut job) = self.load(seq, JobStatus::Queued)? else { continue };
            let payload = match self.each(seq, Some(job.status), |state| view::payload(&state.conn, seq))? {
                Ok(payload) => payload,
                Err(why) => {
                    self.put_aside(seq, None, &why)?;
                    continue;
                }
            };
            bytes += payload.len();
            if bytes > claim.max_bytes && !attempts.is_empty() {
                break;
            }
            wanted[want].left -= 1;
            let found = Some(job.status);
            attempts.push(self.each(seq, found, |state| state.start(&mut job, claim, &wanted[want], payload))?);
        }
        let mut next = None;
        for wanted in &wanted {
            let of_kind = self.next_claim(wanted.kind)?;
            if of_kind != Some(Duration::ZERO) {
                self.found_none(wanted.kind)?;
            }
            next = [next, of_kind].into_iter().flatten().min();
        }
        Ok(Claimed { attempts, next_claim: next, now: self.now })
    }

    /// The types that are known; one that is named twice is wanted once, as often as both say.
    fn wanted(&mut self, claim: &Claim) -> Result<Vec<Wanted>, Fail> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for want in &claim.quotas {
            let Some(kind) = self.ledger.kind(&self.conn, &want.name)? else { continue };
            match wanted.iter_mut().find(|known| known.kind == kind) {
                Some(known) => known.left = known.left.saturating_add(want.max),
                None => wanted.push(Wanted { kind, name: want.name.clone(), left: want.max, timeout: want.timeout }),
            }
        }
        Ok(wanted)
    }

    /// The first jobs in a state over all wanted types, in their common order. Of each type no more than are wanted
    /// if they are to run, so that a type with none left does not hide others.
    fn heads(&self, status: JobStatus, wanted: &[Wanted], most: usize) -> Result<Vec<Head>, Fail> {
        let mut heads: Vec<Head> = Vec::new();
        let sql = "SELECT score, id, seq FROM jobs WHERE status = ?1 AND type = ?2 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score, id LIMIT ?3";
        for (at, wanted) in wanted.iter().enumerate() {
            let limit = if status == JobStatus::Queued { most.min(wanted.left as usize) } else { most };
            let mut find = self.conn.prepare_cached(sql)?;
            let mut rows = find.query(params![status as i64, wanted.kind, limit as i64])?;
            while let Some(row) = rows.next()? {
                heads.push(head(row, at)?);
            }
        }
        heads.sort_unstable();
        Ok(heads)
    }

    /// Makes due jobs runnable, soonest first. Their order is the time they were due.
    fn promote(&mut self, wanted: &[Wanted]) -> Result<(), Fail> {
        let now = self.now;
        let mut soonest = self.due(wanted)?;
        soonest.truncate(SWEEP_JOBS as usize);
        for (.., seq) in soonest {
            let Some(mut job) = self.load(seq, JobStatus::Scheduled)? else { continue };
            let due = job.due.unwrap_or(now);
            let Some(after) = lifecycle::next(job.status, false, Event::Due) else { continue };
            self.each(seq, Some(job.status), |state| {
                state.change(&mut job, now, |job| {
                    job.status = after;
                    job.order = order_at(due);
                })
            })?;
        }
        Ok(())
    }

    fn due(&self, wanted: &[Wanted]) -> Result<Vec<Head>, Fail> {
        let mut heads: Vec<Head> = Vec::new();
        let sql = "SELECT score, id, seq FROM jobs WHERE status = 1 AND type = ?1 AND score <= ?2 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score, id LIMIT ?3";
        for (at, wanted) in wanted.iter().enumerate() {
            let mut find = self.conn.prepare_cached(sql)?;
            let mut rows = find.query(params![wanted.kind, self.now.as_micros(), SWEEP_JOBS])?;
            while let Some(row) = rows.next()? {
                heads.push(head(row, at)?);
            }
        }
        heads.sort_unstable();
        Ok(heads)
    }

    fn next_claim(&self, kind: i64) -> Result<Option<Duration>, Fail> {
        let sql =
            "SELECT 1 FROM jobs WHERE status = 0 AND type = ?1 AND seq NOT IN (SELECT seq FROM quarantine) LIMIT 1";
        let mut queued = self.conn.prepare_cached(sql)?;
        if queued.exists([kind])? {
            return Ok(Some(Duration::ZERO));
        }
        let sql = "SELECT score FROM jobs WHERE status = 1 AND type = ?1 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score LIMIT 1";
        let due = self.conn.prepare_cached(sql)?.query_row([kind], |row| row.get(0)).optional()?;
        Ok(due.map(|due| Timestamp::from_micros(due).since(self.now)))
    }

    fn start(&mut self, job: &mut Job, claim: &Claim, wanted: &Wanted, payload: Bytes) -> Result<Attempt, Fail> {
        let now = self.now;
        self.change(job, now, |job| {
            job.status = JobStatus::InProgress;
            job.attempt += 1;
            job.started_at = Some(now);
            job.last = job.current.zip(job.settled);
            (job.current, job.settled) = (Some(claim.token), None);
            job.lease_until = Some(now + claim.lease);
            job.deadline = Some(now + wanted.timeout);
            job.progress = None;
        })?;
        let waited = now.since(job.runnable_since);
        self.ledger.slot(&self.conn, job.kind, now)?.queue_time.record(waited);
        Ok(Attempt {
            lease: Lease { job: job.id, token: claim.token },
            name: wanted.name.clone(),
            attempt: job.attempt,
            retry_count: job.retries,
            max_retries: job.terms.max_retries,
            priority: job.terms.priority,
            payload,
            created_at: job.created_at,
            runnable_since: job.runnable_since,
            started_at: now,
            trace: job.trace.clone(),
            previous_span: job.span.clone(),
        })
    }

    pub(crate) fn beat(&self, beat: &Heartbeat) -> Result<(), Fail> {
        let (now, worker) = (self.now.as_micros(), beat.worker.0.as_bytes());
        self.conn.prepare_cached("DELETE FROM beats WHERE until <= ?1")?.execute([now])?;
        if beat.ttl.is_zero() {
            self.conn.prepare_cached("DELETE FROM beats WHERE worker = ?1")?.execute([worker])?;
            return Ok(());
        }
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO beats (worker, at, until, record) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![worker, now, (self.now + beat.ttl).as_micros(), json(&BeatRecord::of(beat))?])?;
        Ok(())
    }

    /// Only the lease moves: its index is the only one that is written.
    pub(crate) fn renew(&self, lease: Lease, until: Timestamp) -> Result<Renewed, Fail> {
        let sql = "UPDATE jobs SET lease_until = ?3 WHERE id = ?1 AND status = 2 AND token = ?2 \
            RETURNING cancel_requested_at";
        let mut renew = self.conn.prepare_cached(sql)?;
        let params = params![lease.job.0.as_bytes(), lease.token.0.as_bytes(), until.as_micros()];
        let asked: Option<Option<i64>> = renew.query_row(params, |row| row.get(0)).optional()?;
        Ok(match asked {
            None => Renewed::Lost,
            Some(None) => Renewed::Held,
            Some(Some(_)) => Renewed::CancelRequested,
        })
    }

    pub(crate) fn report(&mut self, report: &Report) -> Result<Fenced, Fail> {
        let now = self.now;
        let Some(mut job) = self.running_under(report.lease)? else { return Ok(Fenced::Lost) };
        self.log(&mut job, report)?;
        match &report.progress {
            Some(progress) => {
                self.change(&mut job, now, |job| job.progress = Some(progress.stored(now)))?;
            }
            None if !report.logs.is_empty() => {
                self.conn
                    .prepare_cached("UPDATE jobs SET log_lines = ?2, log_bytes = ?3 WHERE seq = ?1")?
                    .execute(params![job.seq, job.log_lines, job.log_bytes])?;
            }
            None => {}
        }
        Ok(Fenced::Applied)
    }

    /// Appends lines; beyond the bound the oldest attempt's lines go, never the current one's.
    fn log(&self, job: &mut Job, report: &Report) -> Result<(), Fail> {
        let sql = "INSERT INTO logs (seq, line, attempt, bytes, record) VALUES (?1, ?2, ?3, ?4, ?5)";
        for line in &report.logs {
            let bytes = line.bytes() as i64;
            job.log_lines += 1;
            job.log_bytes += bytes;
            self.conn.prepare_cached(sql)?.execute(params![job.seq, job.log_lines, job.attempt, bytes, json(line)?])?;
        }
        while job.log_bytes > LOG_BYTES_PER_JOB as i64 {
            let sql = "SELECT attempt, (SELECT sum(bytes) FROM logs WHERE seq = ?1 AND attempt = oldest.attempt) \
                FROM logs AS oldest WHERE seq = ?1 ORDER BY line LIMIT 1";
            let oldest = self.conn.prepare_cached(sql)?.query_row([job.seq], |row| Ok((row.get(0)?, row.get(1)?)));
            let Some((oldest, bytes)) = oldest.optional()? else { break };
            let (oldest, bytes): (u32, i64) = (oldest, bytes);
            if oldest == job.attempt {
                break;
            }
            self.conn
                .prepare_cached("DELETE FROM logs WHERE seq = ?1 AND attempt = ?2")?
                .execute(params![job.seq, oldest])?;
            job.log_bytes -= bytes;
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, settle: &Settlement, clear: Clear) -> Result<Settled, Fail> {
        let Some(mut job) = view::find(&self.conn, settle.lease.job)? else { return Ok(Settled::Lost) };
        if !job.runs_under(settle.lease.token) {
            return Ok(job.settled_by(settle.lease.token).map_or(Settled::Lost, Settled::Settled));
        }
        let (error, delay) = match &settle.outcome {
            Outcome::Completed { .. } | Outcome::Released => (None, Duration::ZERO),
            Outcome::Retry { delay, error } => (Some(error), *delay),
            Outcome::Failed { error } | Outcome::Canceled { error } => (Some(error), Duration::ZERO),
        };
        let (outcome, now) = (settle.outcome.kind(), self.now);
        let end = End { outcome, error, if_canceled: &settle.if_canceled, delay, slow: settle.slow };
        let after = self.end(&mut job, &end, |job, after| {
            job.settled = Some(after);
            job.span.clone_from(&settle.span);
            if let Some(progress) = &settle.progress {
                job.progress = Some(progress.stored(now));
            }
        })?;
        if let Outcome::Completed { result } = &settle.outcome {
            self.conn
                .prepare_cached("INSERT OR REPLACE INTO results (seq, format, bytes) VALUES (?1, 1, ?2)")?
                .execute(params![job.seq, result.as_ref()])?;
            // Nothing can run it again.
            if clear == Clear::Payload {
                let sql = "DELETE FROM payloads WHERE seq = ?1";
                self.each(job.seq, Some(after), |state| Ok(state.conn.prepare_cached(sql)?.execute([job.seq])?))?;
            }
        }
        Ok(Settled::Settled(after))
    }

    fn running_under(&self, lease: Lease) -> Result<Option<Job>, Fail> {
        Ok(view::find(&self.conn, lease.job)?.filter(|job| job.runs_under(lease.token)))
    }
}

/// A beat as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct BeatRecord {
    types: Vec<(JobName, u32, u32)>,
    busy: u32,
    idle: u32,
    leaked: u32,
}

impl BeatRecord {
    fn of(beat: &Heartbeat) -> Self {
        let types = beat.types.iter().map(|kind| (kind.name.clone(), kind.running, kind.limit)).collect();
        let WorkerSlots { busy, idle, leaked } = beat.slots;
        Self { types, busy, idle, leaked }
    }

    pub(crate) fn parts(self) -> (Vec<TypeCapacity>, WorkerSlots) {
        let types =
            self.types.into_iter().map(|(name, running, limit)| TypeCapacity { name, running, limit }).collect();
        (types, WorkerSlots { busy: self.busy, idle: self.idle, leaked: self.leaked })
    }
}
