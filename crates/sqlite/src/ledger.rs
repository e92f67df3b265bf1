//! The writer's cache of counts, minute buckets and the last order number, written once for each commit.
//!
//! It holds the file's values plus the changes of the open transaction. It is dropped and read again after a commit of
//! another process or a failed commit.

use std::collections::HashMap;

use async_endpoints_core::{JobName, JobStatus, Priority, Timestamp, store::MinuteStats};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter, types::Value};

use crate::{
    failure::Failure,
    minutes::Minutes,
    score::order_number_at,
    types::{COUNTS, Counts, NEVER_STARTED, Types, counts, queued_of},
};

struct TypeCounts {
    name: JobName,
    counts: Counts,
    changed: bool,
}

#[derive(Default)]
pub(crate) struct Ledger {
    ids: HashMap<JobName, i64>,
    types: HashMap<i64, TypeCounts>,
    minutes: Minutes,
    last_order: Option<i64>,
    last_order_changed: bool,
}

impl Types for Ledger {
    fn name(&mut self, conn: &Connection, type_id: i64) -> Result<JobName, Failure> {
        self.load(conn, type_id).map(|found| found.name.clone())
    }

    fn counts(&mut self, conn: &Connection, type_id: i64) -> Result<Counts, Failure> {
        self.load(conn, type_id).map(|found| found.counts)
    }
}

impl Ledger {
    pub(crate) fn type_id(&mut self, conn: &Connection, name: &JobName) -> Result<Option<i64>, Failure> {
        if let Some(type_id) = self.ids.get(name) {
            return Ok(Some(*type_id));
        }
        let mut find = conn.prepare_cached("SELECT type_id FROM types WHERE name = ?1")?;
        let type_id: Option<i64> = find.query_row([name.as_str()], |row| row.get(0)).optional()?;
        if let Some(type_id) = type_id {
            self.load(conn, type_id)?;
        }
        Ok(type_id)
    }

    pub(crate) fn type_id_or_new(&mut self, conn: &Connection, name: &JobName) -> Result<i64, Failure> {
        if let Some(type_id) = self.type_id(conn, name)? {
            return Ok(type_id);
        }
        conn.prepare_cached("INSERT INTO types (name) VALUES (?1)")?.execute([name.as_str()])?;
        let type_id = conn.last_insert_rowid();
        self.load(conn, type_id)?;
        Ok(type_id)
    }

    fn load(&mut self, conn: &Connection, type_id: i64) -> Result<&mut TypeCounts, Failure> {
        if !self.types.contains_key(&type_id) {
            let mut find = conn.prepare_cached(&format!("SELECT name, {COUNTS} FROM types WHERE type_id = ?1"))?;
            let found = find.query_row([type_id], |row| Ok((row.get(0)?, counts(row, 1)?))).optional()?;
            let (name, counts): (String, Counts) = found.ok_or_else(|| Failure::unknown_type(type_id))?;
            let name = JobName::new(&name).map_err(|error| Failure::Unreadable(error.to_string()))?;
            self.ids.insert(name.clone(), type_id);
            self.types.insert(type_id, TypeCounts { name, counts, changed: false });
        }
        self.types.get_mut(&type_id).ok_or_else(|| Failure::unknown_type(type_id))
    }

    /// Adds `by` to the counts that a job with these values belongs to.
    pub(crate) fn count(
        &mut self,
        conn: &Connection,
        type_id: i64,
        (status, priority, attempt): (JobStatus, Priority, u32),
        by: i64,
    ) -> Result<(), Failure> {
        let second = match status {
            JobStatus::Queued => Some(queued_of(priority)),
            JobStatus::Scheduled if attempt == 0 => Some(NEVER_STARTED),
            _ => None,
        };
        let found = self.load(conn, type_id)?;
        found.changed = true;
        [status as usize].into_iter().chain(second).for_each(|at| found.counts[at] += by);
        Ok(())
    }

    /// The present minute bucket of a type, for a change.
    pub(crate) fn minute(
        &mut self,
        conn: &Connection,
        type_id: i64,
        now: Timestamp,
    ) -> Result<&mut MinuteStats, Failure> {
        let name = self.name(conn, type_id)?;
        self.minutes.change(conn, now.minute(), type_id, name)
    }

    /// The next order number. It follows the time and grows even if the clock is set back.
    pub(crate) fn next_order_number(&mut self, conn: &Connection, now: Timestamp) -> Result<i64, Failure> {
        let last = match self.last_order {
            Some(last) => last,
            None => conn.prepare_cached("SELECT last_order FROM meta")?.query_row([], |row| row.get(0))?,
        };
        let next = order_number_at(now).max(last + 1);
        (self.last_order, self.last_order_changed) = (Some(next), true);
        Ok(next)
    }

    /// Writes all changes, before the commit.
    pub(crate) fn flush(&mut self, conn: &Connection) -> Result<(), Failure> {
        self.minutes.flush(conn)?;
        for (type_id, found) in self.types.iter_mut().filter(|(_, found)| found.changed) {
            let values = found.counts.into_iter().chain([*type_id]).map(Value::Integer);
            let columns = COUNTS.replace(',', " = ?,");
            let sql = format!("UPDATE types SET {columns} = ? WHERE type_id = ?");
            conn.prepare_cached(&sql)?.execute(params_from_iter(values))?;
            found.changed = false;
        }
        if std::mem::take(&mut self.last_order_changed) {
            conn.prepare_cached("UPDATE meta SET last_order = ?1")?.execute([self.last_order])?;
        }
        Ok(())
    }
}
