//! Calls of the janitor: reclaim and prune.

use std::time::Duration;

use async_endpoints_core::{
    JobStatus, Timestamp,
    job::AttemptOutcome,
    limits::{KEY_SECONDS, SWEEP_JOBS},
    store::{Reclaim, Reclaimed, Recovered},
};
use rusqlite::{OptionalExtension as _, params};

use crate::{
    fail::Fail,
    job::Job,
    state::{End, State},
};

/// Bytes of payloads, results and logs that one step cuts: each takes its time, as large ones stand on many pages.
const PRUNE_BYTES: u64 = 4 << 20;

/// What a step of a prune did.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    pub(crate) cut: u32,
    bytes: u64,
}

impl Pruned {
    /// Whether it stopped at the bound of a step, so that there may be more to cut within the same call.
    pub(crate) const fn more(&self) -> bool {
        self.bytes >= PRUNE_BYTES || self.cut >= SWEEP_JOBS
    }
}

impl State {
    pub(crate) fn reclaim(&mut self, reclaim: &Reclaim) -> Result<Reclaimed, Fail> {
        let now = self.now;
        let quiet_until = self.sweep_begins(reclaim)?;
        if let Some(until) = quiet_until.filter(|until| *until > now) {
            return Ok(Reclaimed::Waiting(until.since(now)));
        }
        let limit = reclaim.limit.min(SWEEP_JOBS) as usize;
        let sql = "SELECT seq FROM jobs INDEXED BY jobs_leased WHERE status = 2 AND lease_until <= ?1 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY lease_until, id LIMIT ?2";
        let mut expired = self.places(sql, params![now.as_micros(), limit as i64 + 1])?;
        let more = expired.len() > limit;
        expired.truncate(limit);
        let mut recovered = Vec::with_capacity(expired.len());
        for seq in expired {
            if let Some(mut job) = self.load(seq, JobStatus::InProgress)? {
                recovered.push(self.each(seq, Some(job.status), |state| state.recover(&mut job, reclaim))?);
            }
        }
        Ok(Reclaimed::Done { recovered, more })
    }

    /// Records the sweep, for all processes; until when nothing is taken.
    fn sweep_begins(&self, reclaim: &Reclaim) -> Result<Option<Timestamp>, Fail> {
        let mut find = self.conn.prepare_cached("SELECT swept, quiet_until FROM meta WHERE one = 1")?;
        let (swept, mut quiet_until) = find.query_row([], |row| {
            let time = |at| row.get(at).map(|time: Option<i64>| time.map(Timestamp::from_micros));
            Ok((time(0)?, time(1)?))
        })?;
        let now = self.now;
        if swept.is_none_or(|swept| now.since(swept) > reclaim.lease) {
            quiet_until = Some(now + reclaim.lease);
        }
        // Never longer than a lease, whatever lease another process has.
        quiet_until = quiet_until.map(|until| until.min(now + reclaim.lease));
        self.conn
            .prepare_cached("UPDATE meta SET swept = ?1, quiet_until = ?2 WHERE one = 1")?
            .execute(params![now.as_micros(), quiet_until.map(Timestamp::as_micros)])?;
        Ok(quiet_until)
    }

    fn recover(&mut self, job: &mut Job, reclaim: &Reclaim) -> Result<Recovered, Fail> {
        let end = End {
            outcome: AttemptOutcome::Lost,
            error: Some(&reclaim.lost),
            if_canceled: &reclaim.canceled,
            delay: Duration::ZERO,
            slow: false,
        };
        // The dead worker's token is worth nothing from here on, whatever it still tries.
        let status = self.end(job, &end, |job, _| (job.current, job.settled, job.span) = (None, None, None))?;
        let name = self.ledger.name(&self.conn, job.kind)?;
        Ok(Recovered {
            id: job.id,
            name,
            attempt: job.attempt,
            status,
            created_at: job.created_at,
            recovered_at: self.now,
            trace: job.trace.clone(),
        })
    }

    /// Cuts so many at most, in steps for which others need not wait for long: the same call goes on.
    pub(crate) fn prune(&mut self, limit: u32) -> Result<Pruned, Fail> {
        let limit = limit.min(SWEEP_JOBS);
        let mut pruned = Pruned::default();
        for kind in self.places("SELECT type FROM types ORDER BY type", [])? {
            for status in [JobStatus::Completed, JobStatus::Failed, JobStatus::Canceled] {
                self.prune_index(kind, status, limit, &mut pruned)?;
            }
        }
        Ok(pruned)
    }

    /// Cuts the jobs at the head of an index that are past their retention, up to the first that is not.
    fn prune_index(&mut self, kind: i64, status: JobStatus, limit: u32, pruned: &mut Pruned) -> Result<(), Fail> {
        let sql = "SELECT seq FROM jobs WHERE status = ?1 AND type = ?2 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score, id LIMIT ?3";
        for seq in self.places(sql, params![status as i64, kind, limit - pruned.cut])? {
            if pruned.more() {
                break;
            }
            match self.load(seq, status)? {
                Some(job) if job.expired(self.now) => {
                    pruned.bytes += self.each(seq, Some(job.status), |state| state.entomb(&job))?;
                }
                Some(_) => break,
                None => {} // Put aside: it counts as cut.
            }
            pruned.cut += 1;
        }
        Ok(())
    }

    /// Bytes of a job's payload and result, which SQLite tells without reading them.
    fn value_bytes(&self, seq: i64) -> Result<u64, Fail> {
        let mut all = 0;
        for sql in
            ["SELECT length(bytes) FROM payloads WHERE seq = ?1", "SELECT length(bytes) FROM results WHERE seq = ?1"]
        {
            let bytes: Option<i64> = self.conn.prepare_cached(sql)?.query_row([seq], |row| row.get(0)).optional()?;
            all += bytes.unwrap_or(0).unsigned_abs();
        }
        Ok(all)
    }

    fn entomb(&mut self, job: &Job) -> Result<u64, Fail> {
        let Some(gone_until) = job.gone_until() else { return Ok(0) };
        let bytes = self.value_bytes(job.seq)? + job.log_bytes.unsigned_abs();
        let day = Duration::from_secs(KEY_SECONDS);
        let repeats = if job.repeatable { job.created_at + day } else { gone_until };
        let sql = "INSERT OR REPLACE INTO tombstones (id, owner, fingerprint, gone_until, forget_at, type, key) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            job.id.0.as_bytes(),
            job.owner.map(|owner| owner.0),
            job.fingerprint.0,
            gone_until.as_micros(),
            gone_until.max(repeats).as_micros(),
            job.kind,
            job.key,
        ])?;
        self.ledger.count(&self.conn, job.kind, job.counted(), -1)?;
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

    /// Forgets tombstones past their time, and their keys with them. In steps too.
    pub(crate) fn forget(&mut self, limit: u32) -> Result<u32, Fail> {
        let limit = limit.min(SWEEP_JOBS);
        let mut forgotten = 0;
        let next = "SELECT id FROM tombstones WHERE forget_at <= ?1 ORDER BY forget_at LIMIT 1";
        while forgotten < limit {
            let mut find = self.conn.prepare_cached(next)?;
            let id: Option<Vec<u8>> = find.query_row([self.now.as_micros()], |row| row.get(0)).optional()?;
            let Some(id) = id else { break };
            let key = "DELETE FROM keys WHERE (owner, type, key) IN (SELECT ifnull(owner, x''), type, key \
                FROM tombstones WHERE id = ?1 AND key IS NOT NULL)";
            self.conn.prepare_cached(key)?.execute([&id])?;
            self.conn.prepare_cached("DELETE FROM tombstones WHERE id = ?1")?.execute([&id])?;
            forgotten += 1;
        }
        Ok(forgotten)
    }
}
