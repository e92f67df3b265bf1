//! Counts, slots and the order number of the writer, written once for each commit.
//!
//! What is known here is what the file says plus what the open transaction moved. It stands until another process
//! commits, or a commit of ours fails: then it is read again.

use std::collections::{BTreeMap, HashMap};

use async_endpoints_core::{JobName, JobStatus, Priority, Timestamp, limits::STATS_MINUTES, store::MinuteStats};
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter, types::Value};

use crate::{fail::Fail, order::order_at, slots};

/// Jobs of a type: by state, then Scheduled ones that never started, then Queued ones by priority.
pub(crate) type Counts = [i64; 17];

pub(crate) const NEVER_STARTED: usize = 6;

/// The columns of [`Counts`], in their order.
pub(crate) const COUNTS: &str = "queued, scheduled, in_progress, completed, failed, canceled, never_started, \
    queued_0, queued_1, queued_2, queued_3, queued_4, queued_5, queued_6, queued_7, queued_8, queued_9";

const SAVE_COUNTS: &str = "UPDATE types SET queued = ?2, scheduled = ?3, in_progress = ?4, completed = ?5, \
    failed = ?6, canceled = ?7, never_started = ?8, queued_0 = ?9, queued_1 = ?10, queued_2 = ?11, queued_3 = ?12, \
    queued_4 = ?13, queued_5 = ?14, queued_6 = ?15, queued_7 = ?16, queued_8 = ?17, queued_9 = ?18 WHERE type = ?1";

/// The count of Queued jobs of a priority.
pub(crate) fn queued_of(priority: Priority) -> usize {
    NEVER_STARTED + 1 + usize::from(priority.get())
}

/// Reads counts from a row, from column `at` on.
pub(crate) fn counts(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    for (i, count) in counts.iter_mut().enumerate() {
        *count = row.get(at + i)?;
    }
    Ok(counts)
}

struct Kind {
    name: JobName,
    counts: Counts,
    moved: bool,
}

#[derive(Default)]
pub(crate) struct Ledger {
    by_name: HashMap<JobName, i64>,
    kinds: HashMap<i64, Kind>,
    slots: BTreeMap<(i64, i64), MinuteStats>,
    last_order: Option<i64>,
    ordered: bool,
}

impl Ledger {
    pub(crate) fn kind(&mut self, conn: &Connection, name: &JobName) -> Result<Option<i64>, Fail> {
        if let Some(kind) = self.by_name.get(name) {
            return Ok(Some(*kind));
        }
        let mut find = conn.prepare_cached("SELECT type FROM types WHERE name = ?1")?;
        let kind: Option<i64> = find.query_row([name.as_str()], |row| row.get(0)).optional()?;
        if let Some(kind) = kind {
            self.load(conn, kind)?;
        }
        Ok(kind)
    }

    pub(crate) fn kind_or_new(&mut self, conn: &Connection, name: &JobName) -> Result<i64, Fail> {
        if let Some(kind) = self.kind(conn, name)? {
            return Ok(kind);
        }
        conn.prepare_cached("INSERT INTO types (name) VALUES (?1)")?.execute([name.as_str()])?;
        let kind = conn.last_insert_rowid();
        self.load(conn, kind)?;
        Ok(kind)
    }

    fn load(&mut self, conn: &Connection, kind: i64) -> Result<&mut Kind, Fail> {
        if !self.kinds.contains_key(&kind) {
            let mut find = conn.prepare_cached(&format!("SELECT name, {COUNTS} FROM types WHERE type = ?1"))?;
            let found = find.query_row([kind], |row| Ok((row.get(0)?, counts(row, 1)?))).optional()?;
            let (name, counts): (String, Counts) = found.ok_or_else(|| Fail::no_type(kind))?;
            let name = JobName::new(&name).map_err(|bad| Fail::Bad(bad.to_string()))?;
            self.by_name.insert(name.clone(), kind);
            self.kinds.insert(kind, Kind { name, counts, moved: false });
        }
        self.kinds.get_mut(&kind).ok_or_else(|| Fail::no_type(kind))
    }

    pub(crate) fn name(&mut self, conn: &Connection, kind: i64) -> Result<JobName, Fail> {
        self.load(conn, kind).map(|kind| kind.name.clone())
    }

    pub(crate) fn counts(&mut self, conn: &Connection, kind: i64) -> Result<Counts, Fail> {
        self.load(conn, kind).map(|kind| kind.counts)
    }

    /// Counts a job that came into or left a state.
    pub(crate) fn count(
        &mut self,
        conn: &Connection,
        kind: i64,
        (status, priority, attempt): (JobStatus, Priority, u32),
        by: i64,
    ) -> Result<(), Fail> {
        let beside = match status {
            JobStatus::Queued => Some(queued_of(priority)),
            JobStatus::Scheduled if attempt == 0 => Some(NEVER_STARTED),
            _ => None,
        };
        let counted = self.load(conn, kind)?;
        counted.moved = true;
        let counters = [status as usize].into_iter().chain(beside);
        counters.for_each(|counter| counted.counts[counter] += by);
        Ok(())
    }

    /// The slot of this minute, to count in: what the open transaction adds to it.
    pub(crate) fn slot(&mut self, conn: &Connection, kind: i64, now: Timestamp) -> Result<&mut MinuteStats, Fail> {
        let name = self.name(conn, kind)?;
        let minute = now.minute();
        Ok(self.slots.entry((minute, kind)).or_insert_with(|| MinuteStats::new(minute, name)))
    }

    pub(crate) fn next_order(&mut self, conn: &Connection, now: Timestamp) -> Result<i64, Fail> {
        let last = match self.last_order {
            Some(last) => last,
            None => {
                conn.prepare_cached("SELECT last_order FROM meta WHERE one = 1")?.query_row([], |row| row.get(0))?
            }
        };
        let order = order_at(now).max(last + 1);
        (self.last_order, self.ordered) = (Some(order), true);
        Ok(order)
    }

    /// Writes what the open transaction added to slots, if they are to be written.
    pub(crate) fn save_slots(&mut self, conn: &Connection, wanted: bool) -> Result<(), Fail> {
        let slots = std::mem::take(&mut self.slots);
        let mut slots = slots.into_iter().filter(|_| wanted);
        slots.try_for_each(|((minute, kind), slot)| save_slot(conn, minute, kind, slot))
    }

    /// Writes what moved, before the commit, and the time by which it did.
    pub(crate) fn flush(&mut self, conn: &Connection, now: Timestamp) -> Result<(), Fail> {
        for (id, kind) in self.kinds.iter_mut().filter(|(_, kind)| kind.moved) {
            let values = [*id].into_iter().chain(kind.counts).map(Value::Integer);
            conn.prepare_cached(SAVE_COUNTS)?.execute(params_from_iter(values))?;
            kind.moved = false;
        }
        let order = if std::mem::take(&mut self.ordered) { self.last_order } else { None };
        let sql = "UPDATE meta SET last_order = ifnull(?1, last_order), latest = max(latest, ?2) WHERE one = 1";
        conn.prepare_cached(sql)?.execute(params![order, now.as_micros()])?;
        Ok(())
    }
}

fn save_slot(conn: &Connection, minute: i64, kind: i64, mut slot: MinuteStats) -> Result<(), Fail> {
    let mut find = conn.prepare_cached("SELECT CAST(record AS BLOB) FROM slots WHERE minute = ?1 AND type = ?2")?;
    let before: Option<Vec<u8>> = find.query_row([minute, kind], |row| row.get(0)).optional()?;
    if let Some(before) = before.as_ref().and_then(|record| slots::decode(minute, slot.name.clone(), record)) {
        slots::merge(&mut slot, &before);
    }
    conn.prepare_cached("INSERT OR REPLACE INTO slots (minute, type, record) VALUES (?1, ?2, ?3)")?
        .execute(params![minute, kind, slots::encode(&slot)])?;
    if before.is_none() {
        conn.prepare_cached("DELETE FROM slots WHERE minute <= ?1")?.execute([minute - STATS_MINUTES])?;
    }
    Ok(())
}
