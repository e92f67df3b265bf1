//! The threads that read: each call sees one snapshot, taken after every write that was answered before it.

use std::collections::HashMap;

use async_endpoints_core::{JobName, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use crate::{
    fail::Fail,
    file::File,
    ledger::{COUNTS, Counts, counts},
    queue::{Call, Found, Queue},
    time::Time,
    view::Kinds,
};

/// A connection that reads, in a snapshot while a call runs.
pub(crate) struct Reader {
    pub(crate) conn: Connection,
    pub(crate) names: Names,
    /// The time of the running call.
    pub(crate) now: Timestamp,
}

/// Names of types: they never change.
#[derive(Default)]
pub(crate) struct Names(HashMap<i64, JobName>);

impl Kinds for Names {
    fn name(&mut self, conn: &Connection, kind: i64) -> Result<JobName, Fail> {
        if let Some(name) = self.0.get(&kind) {
            return Ok(name.clone());
        }
        let mut find = conn.prepare_cached("SELECT name FROM types WHERE type = ?1")?;
        let name: Option<String> = find.query_row([kind], |row| row.get(0)).optional()?;
        let name = name.ok_or_else(|| Fail::no_type(kind))?;
        let name = JobName::new(&name).map_err(|bad| Fail::Bad(bad.to_string()))?;
        self.0.insert(kind, name.clone());
        Ok(name)
    }

    fn counts(&mut self, conn: &Connection, kind: i64) -> Result<Counts, Fail> {
        let mut find = conn.prepare_cached(&format!("SELECT {COUNTS} FROM types WHERE type = ?1"))?;
        find.query_row([kind], |row| counts(row, 0)).optional()?.ok_or_else(|| Fail::no_type(kind))
    }
}

impl Reader {
    pub(crate) fn new(conn: Connection) -> Self {
        Self { conn, names: Names::default(), now: Timestamp::default() }
    }

    pub(crate) fn kind(&self, name: &JobName) -> Result<Option<i64>, Fail> {
        let mut find = self.conn.prepare_cached("SELECT type FROM types WHERE name = ?1")?;
        Ok(find.query_row([name.as_str()], |row| row.get(0)).optional()?)
    }

    pub(crate) fn kinds(&self) -> Result<Vec<i64>, Fail> {
        let mut find = self.conn.prepare_cached("SELECT type FROM types")?;
        let kinds = find.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(kinds)
    }

    /// Runs one call in a snapshot. The time is read when the snapshot stands: nothing in it is of the future.
    fn step(&mut self, call: &mut dyn Call<Self>, time: &Time) -> Result<(), Fail> {
        if !self.conn.is_autocommit() {
            // The last snapshot did not end: nothing can be read in it that is new.
            self.conn.execute_batch("ROLLBACK")?;
        }
        self.conn.execute_batch("BEGIN")?;
        let stands = time.catch_up(&self.conn);
        if stands.is_ok() {
            self.now = self.now.max(time.now());
            call.run(self);
        }
        // A snapshot that stayed open would keep the log from being copied back for ever.
        self.conn.execute_batch("ROLLBACK")?;
        stands
    }
}

/// Reads until nobody can ask any more.
pub(crate) fn run(mut reader: Reader, queue: &Queue<Reader>, file: &File, time: &Time) {
    while let Found::Calls(calls) = queue.take(1, usize::MAX, None) {
        for mut call in calls.into_iter().filter(|call| call.wanted()) {
            let done = file.check().and_then(|()| reader.step(&mut *call, time));
            call.answer(done.err().as_ref());
        }
    }
}
