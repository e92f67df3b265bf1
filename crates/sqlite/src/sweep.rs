//! Periodic calls: requeue jobs whose lease expired, and delete expired jobs.

use async_endpoints_core::{
    JobStatus, Timestamp,
    lifecycle::{self, EndedAttempt},
    limits::SWEEP_JOBS,
    store::{Reclaim, Reclaimed, Recovered},
};
use rusqlite::{OptionalExtension as _, params};

use crate::{
    failure::Failure,
    job::Job,
    state::{FAR_AHEAD, State},
    types::Types as _,
};

/// Bytes of deleted payloads, results and logs after which a step stops, since large values take long to delete.
const PRUNE_BYTES: u64 = 4 << 20;

/// What a step of a prune removed.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) removed: u32,
    bytes: u64,
}

impl Pruned {
    /// Whether the step stopped at a limit, so that more may be left to remove.
    pub(crate) const fn reached_limit(&self) -> bool {
        self.bytes >= PRUNE_BYTES || self.removed >= SWEEP_JOBS
    }
}

impl State {
    pub(crate) fn reclaim(&mut self, reclaim: &Reclaim) -> Result<Reclaimed, Failure> {
        let now = self.now;
        let quiet_until = self.begin_sweep(reclaim)?;
        if let Some(until) = quiet_until.filter(|until| *until > now) {
            return Ok(Reclaimed::Waiting(until.since(now)));
        }
        // A lease whose end a wrong clock put far ahead ends one lease from now.
        let far = "UPDATE jobs INDEXED BY jobs_leased SET lease_until = ?1 WHERE status = 2 AND lease_until > ?2";
        self.conn.prepare_cached(far)?.execute([(now + reclaim.lease).as_micros(), (now + FAR_AHEAD).as_micros()])?;
        let limit = reclaim.limit.min(SWEEP_JOBS) as usize;
        let sql = "SELECT seq FROM jobs INDEXED BY jobs_leased WHERE status = 2 AND lease_until <= ?1 \
            ORDER BY lease_until, id LIMIT ?2";
        let mut expired = self.numbers(sql, params![now.as_micros(), limit as i64 + 1])?;
        let more = expired.len() > limit;
        expired.truncate(limit);
        let mut recovered = Vec::with_capacity(expired.len());
        for seq in expired {
            if let Some(mut job) = self.load(seq, JobStatus::InProgress)? {
                recovered.push(self.recover(&mut job, reclaim)?);
            }
        }
        Ok(Reclaimed::Done { recovered, more })
    }

    /// Records the sweep for all processes. Returns until when no lease is reclaimed: after a pause of more than a lease, the
    /// workers get the time of a lease to renew.
    fn begin_sweep(&self, reclaim: &Reclaim) -> Result<Option<Timestamp>, Failure> {
        let mut find = self.conn.prepare_cached("SELECT swept, quiet_until FROM meta")?;
        let (swept, mut quiet_until) = find.query_row([], |row| {
            let time = |at| row.get(at).map(|time: Option<i64>| time.map(Timestamp::from_micros));
            Ok((time(0)?, time(1)?))
        })?;
        let now = self.now;
        if swept.is_none_or(|swept| now.since(swept) > reclaim.lease) {
            quiet_until = Some(now + reclaim.lease);
        }
        // At most a lease from now, also if another process has longer leases or the clock was set back.
        quiet_until = quiet_until.map(|until| until.min(now + reclaim.lease));
        self.conn
            .prepare_cached("UPDATE meta SET swept = ?1, quiet_until = ?2")?
            .execute(params![now.as_micros(), quiet_until.map(Timestamp::as_micros)])?;
        Ok(quiet_until)
    }

    fn recover(&mut self, job: &mut Job, reclaim: &Reclaim) -> Result<Recovered, Failure> {
        // Without its token, the lost worker cannot write any more.
        let status = self
            .end(job, &EndedAttempt::lost(reclaim), |job, _| (job.token, job.settled, job.span) = (None, None, None))?;
        let name = self.ledger.name(&self.conn, job.type_id)?;
        Ok(Recovered {
            id: job.id,
            name,
            attempt: job.attempt,
            status,
            created_at: job.created_at,
            recovered_at: self.now,
            trace: job.trace(),
        })
    }

    /// Deletes at most `limit` expired jobs in a step that stays short for other callers.
    pub(crate) fn prune_jobs(&mut self, limit: u32) -> Result<Pruned, Failure> {
        let limit = limit.min(SWEEP_JOBS);
        let mut pruned = Pruned::default();
        for type_id in self.numbers("SELECT type_id FROM types ORDER BY type_id", [])? {
            for status in [JobStatus::Completed, JobStatus::Failed, JobStatus::Canceled] {
                self.prune_index(type_id, status, limit, &mut pruned)?;
            }
        }
        Ok(pruned)
    }

    /// Deletes the first jobs of an index, up to the first that has not expired.
    fn prune_index(&mut self, type_id: i64, status: JobStatus, limit: u32, pruned: &mut Pruned) -> Result<(), Failure> {
        let sql = "SELECT seq FROM jobs WHERE status = ?1 AND type_id = ?2 ORDER BY score, id LIMIT ?3";
        for seq in self.numbers(sql, params![status as i64, type_id, limit - pruned.removed])? {
            if pruned.reached_limit() {
                break;
            }
            match self.load(seq, status)? {
                Some(job) if job.is_expired(self.now) => pruned.bytes += self.prune_job(&job)?,
                Some(job) if job.ended_at > Some(self.now + FAR_AHEAD) => self.redate(job)?,
                Some(_) => break,
                None => {}
            }
            // A job that left the head of the index counts, whether it was deleted, quarantined or redated.
            pruned.removed += 1;
        }
        Ok(())
    }

    /// Sets the end of a job that ended while a clock was far ahead to now, and moves the job to the end of its index:
    /// there it does not keep other jobs from being pruned.
    fn redate(&mut self, mut job: Job) -> Result<(), Failure> {
        let now = self.now;
        let order_number = self.ledger.next_order_number(&self.conn, now)?;
        self.change(&mut job, now, |job| (job.order_number, job.ended_at) = (order_number, Some(now)))
    }

    /// Bytes of a job's payload and result. SQLite finds a blob's length without reading the blob.
    fn value_bytes(&self, seq: i64) -> Result<u64, Failure> {
        let mut all = 0;
        for sql in
            ["SELECT length(bytes) FROM payloads WHERE seq = ?1", "SELECT length(bytes) FROM results WHERE seq = ?1"]
        {
            let bytes: Option<i64> = self.conn.prepare_cached(sql)?.query_row([seq], |row| row.get(0)).optional()?;
            all += bytes.unwrap_or(0).unsigned_abs();
        }
        Ok(all)
    }

    /// Replaces a job by its tombstone. Returns the deleted bytes.
    fn prune_job(&mut self, job: &Job) -> Result<u64, Failure> {
        let Some(gone_until) = job.gone_until() else { return Ok(0) };
        let bytes = self.value_bytes(job.seq)? + job.log_bytes.unsigned_abs();
        let forget_at = lifecycle::forget_at(job.created_at, gone_until, job.repeatable);
        let sql = "INSERT OR REPLACE INTO tombstones (id, owner, fingerprint, gone_until, forget_at, type_id, key) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            job.id.0.as_bytes(),
            job.owner.map(|owner| owner.0),
            job.fingerprint.0,
            gone_until.as_micros(),
            forget_at.as_micros(),
            job.type_id,
            job.key,
        ])?;
        self.ledger.count(&self.conn, job.type_id, job.counted(), -1)?;
        for sql in [
            "DELETE FROM jobs WHERE seq = ?1",
            "DELETE FROM payloads WHERE seq = ?1",
            "DELETE FROM results WHERE seq = ?1",
            "DELETE FROM attempts WHERE seq = ?1",
            "DELETE FROM logs WHERE seq = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([job.seq])?;
        }
        Ok(bytes)
    }

    /// Deletes at most `limit` expired tombstones and their keys.
    pub(crate) fn prune_tombstones(&mut self, limit: u32) -> Result<u32, Failure> {
        let limit = limit.min(SWEEP_JOBS);
        let mut removed = 0;
        let next = "SELECT id FROM tombstones WHERE forget_at <= ?1 ORDER BY forget_at LIMIT 1";
        while removed < limit {
            let mut find = self.conn.prepare_cached(next)?;
            let id: Option<Vec<u8>> = find.query_row([self.now.as_micros()], |row| row.get(0)).optional()?;
            let Some(id) = id else { break };
            let key = "DELETE FROM keys WHERE (owner, type_id, key) IN (SELECT ifnull(owner, x''), type_id, key \
                FROM tombstones WHERE id = ?1 AND key IS NOT NULL)";
            self.conn.prepare_cached(key)?.execute([&id])?;
            self.conn.prepare_cached("DELETE FROM tombstones WHERE id = ?1")?.execute([&id])?;
            removed += 1;
        }
        Ok(removed)
    }
}
