//! Statistics: counts that the writer maintains, and ages from the first entries of indexes. Nothing scans all jobs.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Priority, Timestamp,
    limits::AHEAD_COUNTED,
    store::{LiveWorker, MinuteStats, Stats, StatsQuery, TypeCutoffs, TypeStats},
};
use rusqlite::{OptionalExtension as _, ToSql, params};

use crate::{
    column::from_json,
    failure::Failure,
    minutes,
    reader::Reader,
    score::{PRIORITY_SPAN, order_number_at, queued_score},
    types::{COUNTS, Counts, NEVER_STARTED, counts, queued_of},
};

/// Queued jobs of each priority that are compared to find the oldest: only released and recovered jobs are not sorted by
/// how long they wait.
const COMPARED: i64 = 16;

/// A type with its counts.
struct CountedType {
    type_id: i64,
    name: JobName,
    counts: Counts,
}

impl Reader {
    pub(crate) fn stats(&self, query: &StatsQuery) -> Result<Stats, Failure> {
        let counted = self.counted()?;
        let mut types = Vec::with_capacity(counted.len());
        for counted in &counted {
            let cutoffs = query.cutoffs.iter().find(|cutoffs| cutoffs.name == counted.name);
            types.push(self.type_stats(counted, cutoffs)?);
        }
        self.count_unrecovered(&counted, &mut types, query)?;
        let minutes = query.since_minute.map(|since| self.minutes(since)).transpose()?.unwrap_or_default();
        let quarantined = "SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT ?1)";
        let quarantined = self.count(quarantined, params![AHEAD_COUNTED as i64])?;
        Ok(Stats { now: self.now, types, minutes, workers: self.workers()?, quarantined, repaired: 0 })
    }

    /// All types, by name.
    fn counted(&self) -> Result<Vec<CountedType>, Failure> {
        let mut find = self.conn.prepare_cached(&format!("SELECT type_id, name, {COUNTS} FROM types ORDER BY name"))?;
        let mut rows = find.query([])?;
        let mut types = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let name = JobName::new(&name).map_err(|error| Failure::Unreadable(error.to_string()))?;
            types.push(CountedType { type_id: row.get(0)?, name, counts: counts(row, 2)? });
        }
        Ok(types)
    }

    fn type_stats(&self, counted: &CountedType, cutoffs: Option<&TypeCutoffs>) -> Result<TypeStats, Failure> {
        let count = |at: usize| u64::try_from(counted.counts[at]).unwrap_or(0);
        let (now, type_id) = (self.now, counted.type_id);
        let running = "SELECT score FROM jobs WHERE status = 2 AND type_id = ?1 ORDER BY score LIMIT 1";
        let scheduled = "SELECT score FROM jobs WHERE status = 1 AND type_id = ?1 ORDER BY score LIMIT 1";
        let due = self.time(scheduled, params![type_id])?.filter(|due| *due <= now);
        let mut stats = TypeStats {
            name: counted.name.clone(),
            counts: JobStatus::ALL.map(|status| count(status as usize)),
            never_started: count(NEVER_STARTED),
            oldest_runnable: self.oldest_queued(counted)?.into_iter().chain(due).min(),
            oldest_running: self.time(running, params![type_id])?,
            slow: 0,
            overdue: 0,
            stale: 0,
            unrecovered: 0,
        };
        if let Some(cutoffs) = cutoffs {
            stats.slow = self.running_before(type_id, now.before(cutoffs.slow_after))?;
            stats.overdue = self.running_before(type_id, now.before(cutoffs.overdue_after))?;
            stats.stale = self.stale(counted, now.before(cutoffs.stuck_after))?;
        }
        Ok(stats)
    }

    /// Since when the oldest queued job waits. Within a priority, jobs are sorted by order number and so by time.
    fn oldest_queued(&self, counted: &CountedType) -> Result<Option<Timestamp>, Failure> {
        let sql = "SELECT min(since) FROM (SELECT runnable_since AS since FROM jobs \
            WHERE status = 0 AND type_id = ?1 AND score >= ?2 AND score < ?3 ORDER BY score, id LIMIT ?4)";
        let mut oldest = None;
        for first in first_scores(counted) {
            let since: Option<i64> = self
                .conn
                .prepare_cached(sql)?
                .query_row(params![counted.type_id, first, first + PRIORITY_SPAN, COMPARED], |row| row.get(0))?;
            oldest = oldest.into_iter().chain(since).min();
        }
        Ok(oldest.map(Timestamp::from_micros))
    }

    fn running_before(&self, type_id: i64, than: Timestamp) -> Result<u64, Failure> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 2 AND type_id = ?1 AND score < ?2 LIMIT ?3)";
        self.count(sql, params![type_id, than.as_micros(), AHEAD_COUNTED as i64])
    }

    /// Jobs that are runnable since before `than`: queued jobs, by the time in their order numbers, and due jobs that no
    /// claim has promoted yet.
    fn stale(&self, counted: &CountedType, than: Timestamp) -> Result<u64, Failure> {
        let (max, end) = (AHEAD_COUNTED as i64, self.order_number_end(than)?);
        // Released and recovered jobs keep their order numbers but wait anew. So the limit is on compared jobs.
        let queued = "SELECT count(*) FROM (SELECT runnable_since AS since FROM jobs \
            WHERE status = 0 AND type_id = ?1 AND score >= ?2 AND score < ?3 ORDER BY score, id LIMIT ?5) WHERE since < ?4";
        let due = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE status = 1 AND type_id = ?1 AND score < ?2 LIMIT ?3)";
        let mut stale = self.count(due, params![counted.type_id, than.as_micros(), max])?;
        for first in first_scores(counted) {
            stale += self.count(queued, params![counted.type_id, first, first + end, than.as_micros(), max])?;
        }
        Ok(stale.min(AHEAD_COUNTED))
    }

    /// An upper bound of the order numbers of jobs that were accepted before `than`. After a clock was ahead, order numbers
    /// do not show the time.
    fn order_number_end(&self, than: Timestamp) -> Result<i64, Failure> {
        let last: i64 = self.conn.prepare_cached("SELECT last_order FROM meta")?.query_row([], |row| row.get(0))?;
        let ahead = last > order_number_at(self.now + Duration::from_secs(1));
        Ok(if ahead { PRIORITY_SPAN } else { order_number_at(than) + 256 })
    }

    fn count_unrecovered(
        &self,
        counted: &[CountedType],
        types: &mut [TypeStats],
        query: &StatsQuery,
    ) -> Result<(), Failure> {
        let sql = "SELECT type_id, lease_until FROM jobs INDEXED BY jobs_leased \
            WHERE status = 2 AND lease_until < ?1 ORDER BY lease_until LIMIT ?2";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query(params![self.now.as_micros(), AHEAD_COUNTED as i64])?;
        while let Some(row) = rows.next()? {
            let (type_id, until): (i64, i64) = (row.get(0)?, row.get(1)?);
            let Some(at) = counted.iter().position(|counted| counted.type_id == type_id) else { continue };
            let stuck_after =
                query.cutoffs.iter().find(|cutoffs| cutoffs.name == counted[at].name).map(|c| c.stuck_after);
            let stuck = stuck_after.is_some_and(|after| Timestamp::from_micros(until) < self.now.before(after));
            types[at].unrecovered += u64::from(stuck);
        }
        Ok(())
    }

    fn minutes(&self, since: i64) -> Result<Vec<MinuteStats>, Failure> {
        let sql = "SELECT minute, name, CAST(record AS BLOB) FROM minutes JOIN types USING (type_id) \
            WHERE minute >= ?1 AND minute <= ?2 ORDER BY minute, name";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query([since, self.now.minute()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, name, record): (i64, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let name = JobName::new(&name).map_err(|error| Failure::Unreadable(error.to_string()))?;
            found.extend(minutes::decode(number, name, &record));
        }
        Ok(found)
    }

    fn workers(&self) -> Result<Vec<LiveWorker>, Failure> {
        // A time ahead of now was written before the clock was set back.
        let sql = "SELECT at, CAST(record AS BLOB) FROM heartbeats WHERE until > ?1 AND at <= ?1";
        let mut find = self.conn.prepare_cached(sql)?;
        let mut rows = find.query([self.now.as_micros()])?;
        let mut workers = Vec::new();
        while let Some(row) = rows.next()? {
            let (at, record): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            // An unreadable heartbeat may be from another version. It is left out.
            let Ok(info) = from_json(&record) else { continue };
            workers.push(LiveWorker { info, last_heartbeat_at: Timestamp::from_micros(at) });
        }
        Ok(workers)
    }

    fn time(&self, sql: &str, params: &[&dyn ToSql]) -> Result<Option<Timestamp>, Failure> {
        let found = self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?;
        Ok(found.map(Timestamp::from_micros))
    }

    fn count(&self, sql: &str, params: &[&dyn ToSql]) -> Result<u64, Failure> {
        let count: i64 = self.conn.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// The first score of each priority that has queued jobs.
fn first_scores(counted: &CountedType) -> impl Iterator<Item = i64> {
    let priorities = (0..10).map(Priority::new).filter(|priority| counted.counts[queued_of(*priority)] > 0);
    priorities.map(|priority| queued_score(priority, 0))
}
