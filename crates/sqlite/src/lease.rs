//! Calls of workers: claim, renew, report, settle. Every write is guarded by the lease.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    job::LogLine,
    lifecycle::EndedAttempt,
    limits::{BATCH_JOBS, LOG_BYTES_PER_JOB, SWEEP_JOBS},
    store::{Attempt, Claim, Claimed, Fenced, Heartbeat, Lease, Outcome, Renewed, Report, Settled, Settlement},
};
use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};

use crate::{column::json, failure::Failure, job::Job, score::order_number_at, state::State, view};

/// The rest of a claim's quota for one type, and how long an attempt of it may run.
struct Quota {
    type_id: i64,
    name: JobName,
    left: u32,
    timeout: Duration,
}

/// An entry of `jobs_by_state`: score, id, the index of the type's quota, and the job's seq.
type Entry = (i64, [u8; 16], usize, i64);

impl State {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Result<Claimed, Failure> {
        let mut quotas = self.quotas(claim)?;
        self.promote(&quotas)?;
        let mut attempts = Vec::new();
        let mut bytes = 0;
        let max = BATCH_JOBS.min(claim.max as usize);
        for (.., quota, seq) in self.first_queued(&quotas, max)? {
            if attempts.len() == max || quotas[quota].left == 0 {
                continue;
            }
            let Some(mut job) = self.load(seq, JobStatus::Queued)? else { continue };
            let payload = match view::payload(&self.conn, seq)? {
                Ok(payload) => payload,
                Err(reason) => {
                    self.quarantine(seq, &reason)?;
                    continue;
                }
            };
            bytes += payload.len();
            if bytes > claim.max_bytes && !attempts.is_empty() {
                break;
            }
            quotas[quota].left -= 1;
            attempts.push(self.start(&mut job, claim, &quotas[quota], payload)?);
        }
        let mut next = None;
        for quota in &quotas {
            next = [next, self.next_claim(quota.type_id)?].into_iter().flatten().min();
        }
        Ok(Claimed { attempts, next_claim: next, now: self.now })
    }

    /// The quotas of known types. Quotas of the same type are added up.
    fn quotas(&mut self, claim: &Claim) -> Result<Vec<Quota>, Failure> {
        let mut quotas: Vec<Quota> = Vec::new();
        for quota in &claim.quotas {
            let Some(type_id) = self.ledger.type_id(&self.conn, &quota.name)? else { continue };
            match quotas.iter_mut().find(|known| known.type_id == type_id) {
                Some(known) => known.left = known.left.saturating_add(quota.max),
                None => {
                    quotas.push(Quota { type_id, name: quota.name.clone(), left: quota.max, timeout: quota.timeout });
                }
            }
        }
        Ok(quotas)
    }

    /// The first queued jobs of all quotas, sorted together. A type yields at most its quota, so that its jobs do not
    /// hide those of other types.
    fn first_queued(&self, quotas: &[Quota], max: usize) -> Result<Vec<Entry>, Failure> {
        let sql = "SELECT score, id, seq FROM jobs WHERE status = 0 AND type_id = ?1 ORDER BY score, id LIMIT ?2";
        let mut entries = Vec::new();
        for (at, quota) in quotas.iter().enumerate() {
            let limit = max.min(quota.left as usize) as i64;
            self.read_entries(sql, params![quota.type_id, limit], at, &mut entries)?;
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn read_entries(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        quota: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Failure> {
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query(params)?;
        while let Some(row) = rows.next()? {
            // An unreadable id is found when the row is read.
            entries.push((row.get(0)?, row.get(1).unwrap_or_default(), quota, row.get(2)?));
        }
        Ok(())
    }

    /// Makes due jobs runnable, the earliest first. The due time decides their order number.
    fn promote(&mut self, quotas: &[Quota]) -> Result<(), Failure> {
        let now = self.now;
        let sql = "SELECT score, id, seq FROM jobs WHERE status = 1 AND type_id = ?1 AND score <= ?2 \
            ORDER BY score, id LIMIT ?3";
        let mut entries = Vec::new();
        for (at, quota) in quotas.iter().enumerate() {
            self.read_entries(sql, params![quota.type_id, now.as_micros(), SWEEP_JOBS], at, &mut entries)?;
        }
        entries.sort_unstable();
        entries.truncate(SWEEP_JOBS as usize);
        for (.., seq) in entries {
            let Some(mut job) = self.load(seq, JobStatus::Scheduled)? else { continue };
            let due = job.due.unwrap_or(now);
            self.change(&mut job, now, |job| {
                job.status = JobStatus::Queued;
                job.order_number = order_number_at(due);
            })?;
        }
        Ok(())
    }

    /// How long until a job of this type can be claimed, if one waits.
    fn next_claim(&self, type_id: i64) -> Result<Option<Duration>, Failure> {
        let mut queued = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE status = 0 AND type_id = ?1 LIMIT 1")?;
        if queued.exists([type_id])? {
            return Ok(Some(Duration::ZERO));
        }
        let sql = "SELECT score FROM jobs WHERE status = 1 AND type_id = ?1 ORDER BY score LIMIT 1";
        let due = self.conn.prepare_cached(sql)?.query_row([type_id], |row| row.get(0)).optional()?;
        Ok(due.map(|due| Timestamp::from_micros(due).since(self.now)))
    }

    fn start(&mut self, job: &mut Job, claim: &Claim, quota: &Quota, payload: Bytes) -> Result<Attempt, Failure> {
        let now = self.now;
        self.change(job, now, |job| {
            job.status = JobStatus::InProgress;
            job.attempt += 1;
            job.started_at = Some(now);
            (job.last_token, job.last_settled) = job.token.zip(job.settled.take()).unzip();
            job.token = Some(claim.token);
            job.worker = Some(claim.worker);
            job.lease_until = Some(now + claim.lease);
            job.deadline = Some(now + quota.timeout);
            job.progress = None;
        })?;
        let waited = now.since(job.runnable_since);
        self.ledger.minute(&self.conn, job.type_id, now)?.queue_time.record(waited);
        Ok(Attempt {
            lease: Lease { job: job.id, token: claim.token },
            name: quota.name.clone(),
            attempt: job.attempt,
            retry_count: job.retries,
            max_retries: job.max_retries,
            priority: job.priority,
            payload,
            created_at: job.created_at,
            runnable_since: job.runnable_since,
            started_at: now,
            owner: job.owner,
            owner_label: job.owner_label.clone(),
            trace: job.trace(),
            previous_span: job.span,
        })
    }

    /// Stores a worker's heartbeat, or deletes it if its ttl is zero.
    pub(crate) fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let (now, worker) = (self.now.as_micros(), heartbeat.worker.id.0.as_bytes());
        // A time ahead of now was written before the clock was set back.
        self.conn.prepare_cached("DELETE FROM heartbeats WHERE until <= ?1 OR at > ?1")?.execute([now])?;
        if heartbeat.ttl.is_zero() {
            self.conn.prepare_cached("DELETE FROM heartbeats WHERE worker = ?1")?.execute([worker])?;
            return Ok(());
        }
        let (until, record) = ((self.now + heartbeat.ttl).as_micros(), json(&heartbeat.worker)?);
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO heartbeats (worker, at, until, record) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![worker, now, until, record])?;
        Ok(())
    }

    /// Extends a lease. The only index that changes is that of leases.
    pub(crate) fn renew(&self, lease: Lease, until: Timestamp) -> Result<Renewed, Failure> {
        let sql = "UPDATE jobs SET lease_until = ?3 WHERE id = ?1 AND status = 2 AND token = ?2 \
            RETURNING cancel_requested_at";
        let mut renew = self.conn.prepare_cached(sql)?;
        let params = params![lease.job.0.as_bytes(), lease.token.0.as_bytes(), until.as_micros()];
        let cancel_requested_at: Option<Option<i64>> = renew.query_row(params, |row| row.get(0)).optional()?;
        Ok(match cancel_requested_at {
            None => Renewed::Lost,
            Some(None) => Renewed::Held,
            Some(Some(_)) => Renewed::CancelRequested,
        })
    }

    pub(crate) fn report(&mut self, report: &Report) -> Result<Fenced, Failure> {
        let now = self.now;
        let Some(mut job) = self.running_under(report.lease)? else { return Ok(Fenced::Lost) };
        self.log(&mut job, &report.logs)?;
        match &report.progress {
            Some(progress) => self.change(&mut job, now, |job| job.progress = Some(progress.stored(now)))?,
            None if !report.logs.is_empty() => {
                self.conn
                    .prepare_cached("UPDATE jobs SET log_lines = ?2, log_bytes = ?3 WHERE seq = ?1")?
                    .execute(params![job.seq, job.log_lines, job.log_bytes])?;
            }
            None => {}
        }
        Ok(Fenced::Applied)
    }

    /// Appends log lines. Beyond the limit, lines of the oldest attempt are deleted, but never those of the running one.
    fn log(&self, job: &mut Job, lines: &[LogLine]) -> Result<(), Failure> {
        let sql = "INSERT INTO logs (seq, line, attempt, bytes, record) VALUES (?1, ?2, ?3, ?4, ?5)";
        for line in lines {
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

    pub(crate) fn settle(&mut self, settlement: &Settlement) -> Result<Settled, Failure> {
        let Some(mut job) = view::find(&self.conn, settlement.lease.job)? else { return Ok(Settled::Lost) };
        if !job.runs_under(settlement.lease.token) {
            return Ok(job.settled_by(settlement.lease.token).map_or(Settled::Lost, Settled::Settled));
        }
        let now = self.now;
        if !settlement.logs.is_empty() {
            self.log(&mut job, &settlement.logs)?;
        }
        let after = self.end(&mut job, &EndedAttempt::settled(settlement), |job, after| {
            job.settled = Some(after);
            job.span = settlement.span;
            if let Some(progress) = &settlement.progress {
                job.progress = Some(progress.stored(now));
            }
        })?;
        if let Outcome::Completed { result } = &settlement.outcome {
            self.conn
                .prepare_cached("INSERT OR REPLACE INTO results (seq, format, bytes) VALUES (?1, 1, ?2)")?
                .execute(params![job.seq, result.as_ref()])?;
            // A completed job cannot run again.
            self.conn.prepare_cached("DELETE FROM payloads WHERE seq = ?1")?.execute([job.seq])?;
        }
        Ok(Settled::Settled(after))
    }

    fn running_under(&self, lease: Lease) -> Result<Option<Job>, Failure> {
        Ok(view::find(&self.conn, lease.job)?.filter(|job| job.runs_under(lease.token)))
    }
}
