//! Job types: their names and the counts of their jobs.

use std::collections::HashMap;

use async_endpoints_core::{JobName, Priority};
use rusqlite::{Connection, OptionalExtension as _};

use crate::failure::Failure;

/// Jobs of a type: by state, then Scheduled jobs that never started, then Queued jobs by priority.
pub(crate) type Counts = [i64; 17];

pub(crate) const NEVER_STARTED: usize = 6;

/// The columns of [`Counts`], in their order.
pub(crate) const COUNTS: &str = "queued, scheduled, in_progress, completed, failed, canceled, never_started, \
    queued_0, queued_1, queued_2, queued_3, queued_4, queued_5, queued_6, queued_7, queued_8, queued_9";

/// The index in [`Counts`] of Queued jobs of a priority.
pub(crate) fn queued_of(priority: Priority) -> usize {
    NEVER_STARTED + 1 + usize::from(priority.get())
}

/// Reads counts from a row, from column `first` on.
pub(crate) fn counts(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    for (i, count) in counts.iter_mut().enumerate() {
        *count = row.get(first + i)?;
    }
    Ok(counts)
}

/// Names and counts of types, as the writer or a reader caches them.
pub(crate) trait Types {
    fn name(&mut self, conn: &Connection, type_id: i64) -> Result<JobName, Failure>;
    fn counts(&mut self, conn: &Connection, type_id: i64) -> Result<Counts, Failure>;
}

/// Cached names of types, which never change.
#[derive(Default)]
pub(crate) struct TypeNames(HashMap<i64, JobName>);

impl Types for TypeNames {
    fn name(&mut self, conn: &Connection, type_id: i64) -> Result<JobName, Failure> {
        if let Some(name) = self.0.get(&type_id) {
            return Ok(name.clone());
        }
        let mut find = conn.prepare_cached("SELECT name FROM types WHERE type_id = ?1")?;
        let name: Option<String> = find.query_row([type_id], |row| row.get(0)).optional()?;
        let name = name.ok_or_else(|| Failure::unknown_type(type_id))?;
        let name = JobName::new(&name).map_err(|error| Failure::Unreadable(error.to_string()))?;
        self.0.insert(type_id, name.clone());
        Ok(name)
    }

    fn counts(&mut self, conn: &Connection, type_id: i64) -> Result<Counts, Failure> {
        let mut find = conn.prepare_cached(&format!("SELECT {COUNTS} FROM types WHERE type_id = ?1"))?;
        find.query_row([type_id], |row| counts(row, 0)).optional()?.ok_or_else(|| Failure::unknown_type(type_id))
    }
}
