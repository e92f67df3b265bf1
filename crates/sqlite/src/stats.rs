//! Statistics: counts that the writer keeps, ages from the heads of indexes. Nothing scans all jobs.

use async_endpoints_core::{
    JobName, JobStatus, Priority, Timestamp,
    limits::AHEAD_COUNTED,
    store::{LiveWorker, MinuteStats, Stats, StatsQuery, TypeCutoffs, TypeStats, WorkerId},
};
use rusqlite::{OptionalExtension as _, ToSql, params};
use uuid::Uuid;

use crate::{
    fail::Fail,
    job::from_json,
    lease::BeatRecord,
    ledger::{COUNTS, Counts, NEVER_STARTED, counts, queued_of},
    order::{PRIORITY_SPAN, order_at, ready_score},
    reader::Reader,
    slots,
};

/// Heads of each priority looked at for the oldest: only released and recovered jobs stand out of line.
const HEADS: i64 = 16;

/// A type with its counts.
struct Counted {
    kind: i64,
    name: JobName,
    counts: Counts,
}

impl Reader {
    pub(crate) fn stats(&self, query: &StatsQuery) -> Result<Stats, Fail> {
        let counted = self.counted()?;
        let mut types = Vec::with_capacity(counted.len());
        for of in &counted {
            let cutoffs = query.cutoffs.iter().find(|cutoffs| cutoffs.name == of.name);
            types.push(self.type_stats(of, cutoffs)?);
        }
        self.count_unrecovered(&counted, &mut types, query)?;
        let slots = query.since_minute.map(|since| self.slots(since)).transpose()?.unwrap_or_default();
        let aside = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT ?1)";
        let quarantined = self.count(aside, params![AHEAD_COUNTED as i64])?;
        Ok(Stats { now: self.now, types, minutes: slots, workers: self.beats()?, quarantined, repaired: 0 })
    }

    /// All types, by name.
    fn counted(&self) -> Result<Vec<Counted>, Fail> {
        let mut find = self.conn.prepare_cached(&format!("SELECT type, name, {COUNTS} FROM types ORDER BY name"))?;
        let mut rows = find.query([])?;
        let mut types = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let name = JobName::new(&name).map_err(|bad| Fail::Bad(bad.to_string()))?;
            types.push(Counted { kind: row.get(0)?, name, counts: counts(row, 2)? });
        }
        Ok(types)
    }

    fn type_stats(&self, of: &Counted, cutoffs: Option<&TypeCutoffs>) -> Result<TypeStats, Fail> {
        let count = |at: usize| u64::try_from(of.counts[at]).unwrap_or(0);
        let (now, kind) = (self.now, of.kind);
        let running = "SELECT score FROM jobs WHERE status = 2 AND type = ?1 ORDER BY score LIMIT 1";
        let scheduled = "SELECT score FROM jobs WHERE status = 1 AND type = ?1 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score LIMIT 1";
        let due = self.time(scheduled, params![kind])?.filter(|due| *due <= now);
        let mut stats = TypeStats {
            name: of.name.clone(),
            counts: JobStatus::ALL.map(|status| count(status as usize)),
            never_started: count(NEVER_STARTED),
            oldest_runnable: self.oldest_queued(of)?.into_iter().chain(due).min(),
            oldest_running: self.time(running, params![kind])?,
            slow: 0,
            overdue: 0,
            stale: 0,
            unrecovered: 0,
        };
        if let Some(cutoffs) = cutoffs {
            stats.slow = self.running_before(kind, now.before(cutoffs.slow_after))?;
            stats.overdue = self.running_before(kind, now.before(cutoffs.overdue_after))?;
            stats.stale = self.stale(of, now.before(cutoffs.stuck_after))?;
        }
        Ok(stats)
    }

    /// Since when the first of each priority wait: within a priority the order number carries the time.
    fn oldest_queued(&self, of: &Counted) -> Result<Option<Timestamp>, Fail> {
        let sql = "SELECT min(since) FROM (SELECT runnable_since AS since FROM jobs \
            WHERE status = 0 AND type = ?1 AND score >= ?2 AND score < ?3 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY score, id LIMIT ?4)";
        let mut oldest = None;
        for first in used(of) {
            let since: Option<i64> = self
                .conn
                .prepare_cached(sql)?
                .query_row(params![of.kind, first, first + PRIORITY_SPAN, HEADS], |row| row.get(0))?;
            oldest = oldest.into_iter().chain(since).min();
        }
        Ok(oldest.map(Timestamp::from_micros))
    }

    fn running_before(&self, kind: i64, than: Timestamp) -> Result<u64, Fail> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 2 AND type = ?1 AND score < ?2 LIMIT ?3)";
        self.count(sql, params![kind, than.as_micros(), AHEAD_COUNTED as i64])
    }

    /// Runnable since before `than`: queued jobs by the time in their order, and due ones nobody promoted.
    fn stale(&self, of: &Counted, than: Timestamp) -> Result<u64, Fail> {
        let (most, end) = (AHEAD_COUNTED as i64, order_at(than) + 256);
        // Released and recovered jobs keep their place and wait anew: the limit is for what is looked at.
        let queued = "SELECT count(*) FROM (SELECT runnable_since AS since FROM jobs WHERE status = 0 AND type = ?1 \
            AND score >= ?2 AND score < ?3 AND seq NOT IN (SELECT seq FROM quarantine) \
            ORDER BY score, id LIMIT ?5) WHERE since < ?4";
        let due = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 1 AND type = ?1 AND score < ?2 \
            AND seq NOT IN (SELECT seq FROM quarantine) LIMIT ?3)";
        let mut stale = self.count(due, params![of.kind, than.as_micros(), most])?;
        for first in used(of) {
            stale += self.count(queued, params![of.kind, first, first + end, than.as_micros(), most])?;
        }
        Ok(stale.min(AHEAD_COUNTED))
    }

    fn count_unrecovered(&self, of: &[Counted], types: &mut [TypeStats], query: &StatsQuery) -> Result<(), Fail> {
        let sql = "SELECT type, lease_until FROM jobs INDEXED BY jobs_leased WHERE status = 2 AND lease_until < ?1 \
            AND seq NOT IN (SELECT seq FROM quarantine) ORDER BY lease_until LIMIT ?2";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query(params![self.now.as_micros(), AHEAD_COUNTED as i64])?;
        while let Some(row) = rows.next()? {
            let (kind, until): (i64, i64) = (row.get(0)?, row.get(1)?);
            let Some(at) = of.iter().position(|of| of.kind == kind) else { continue };
            let stuck_after = query.cutoffs.iter().find(|cutoffs| cutoffs.name == of[at].name).map(|c| c.stuck_after);
            let stuck = stuck_after.is_some_and(|after| Timestamp::from_micros(until) < self.now.before(after));
            types[at].unrecovered += u64::from(stuck);
        }
        Ok(())
    }

    fn slots(&self, since: i64) -> Result<Vec<MinuteStats>, Fail> {
        let sql = "SELECT minute, name, CAST(record AS BLOB) FROM slots JOIN types USING (type) WHERE minute >= ?1 \
            ORDER BY minute, name";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query([since])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (minute, name, record): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let name = JobName::new(&name).map_err(|bad| Fail::Bad(bad.to_string()))?;
            found.extend(slots::decode(minute, name, &record));
        }
        Ok(found)
    }

    fn beats(&self) -> Result<Vec<LiveWorker>, Fail> {
        let mut find =
            self.conn.prepare_cached("SELECT worker, at, CAST(record AS BLOB) FROM beats WHERE until > ?1")?;
        let mut rows = find.query([self.now.as_micros()])?;
        let mut beats = Vec::new();
        while let Some(row) = rows.next()? {
            let (worker, record): ([u8; 16], Vec<u8>) = (row.get(0)?, row.get(2)?);
            // One that cannot be read is of a version that we do not know: it lives, but says nothing to us.
            let Ok(record) = from_json::<BeatRecord>(&record) else { continue };
            let (types, slots) = record.parts();
            let at = Timestamp::from_micros(row.get(1)?);
            beats.push(LiveWorker { worker: WorkerId(Uuid::from_bytes(worker)), types, slots, at });
        }
        Ok(beats)
    }

    fn time(&self, sql: &str, params: &[&dyn ToSql]) -> Result<Option<Timestamp>, Fail> {
        let found = self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?;
        Ok(found.map(Timestamp::from_micros))
    }

    fn count(&self, sql: &str, params: &[&dyn ToSql]) -> Result<u64, Fail> {
        let count: i64 = self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// The first score of each priority that has queued jobs.
fn used(of: &Counted) -> impl Iterator<Item = i64> {
    let priorities = (0..10).map(Priority::new).filter(|priority| of.counts[queued_of(*priority)] > 0);
    priorities.map(|priority| ready_score(priority, 0))
}
