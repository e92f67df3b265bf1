//! The threads that read. Each call reads one snapshot, taken after every write that was answered before the call.

use std::sync::Arc;

use async_endpoints_core::{Clock, JobName, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use crate::{
    failure::Failure,
    files::DatabaseFiles,
    queue::{Call, Queue, Taken},
    types::TypeNames,
};

/// A read-only connection, in a snapshot while a call runs.
pub(crate) struct Reader {
    pub(crate) conn: Connection,
    pub(crate) names: TypeNames,
    /// The time of the running call.
    pub(crate) now: Timestamp,
    clock: Arc<dyn Clock>,
}

impl Reader {
    pub(crate) fn new(conn: Connection, clock: Arc<dyn Clock>) -> Self {
        Self { conn, names: TypeNames::default(), now: Timestamp::default(), clock }
    }

    pub(crate) fn type_id(&self, name: &JobName) -> Result<Option<i64>, Failure> {
        let mut find = self.conn.prepare_cached("SELECT type_id FROM types WHERE name = ?1")?;
        Ok(find.query_row([name.as_str()], |row| row.get(0)).optional()?)
    }

    pub(crate) fn type_ids(&self) -> Result<Vec<i64>, Failure> {
        let mut find = self.conn.prepare_cached("SELECT type_id FROM types")?;
        let ids = find.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(ids)
    }

    /// Runs a call in a snapshot.
    fn run(&mut self, call: &mut dyn Call<Self>) -> Result<(), Failure> {
        if !self.conn.is_autocommit() {
            // The last snapshot did not end: a new call must not read its old data.
            self.conn.execute_batch("ROLLBACK")?;
        }
        self.conn.execute_batch("BEGIN")?;
        // A first read takes the snapshot, so that the call's time is not before anything in it.
        self.conn.prepare_cached("SELECT 1 FROM meta")?.exists([])?;
        self.now = self.clock.now();
        let ran = call.run(self);
        // An open snapshot would keep the log from being copied back.
        self.conn.execute_batch("ROLLBACK")?;
        ran
    }
}

/// Runs calls until the queue is closed.
pub(crate) fn run(mut reader: Reader, queue: &Queue<Reader>, files: &DatabaseFiles) {
    while let Taken::Calls(calls) = queue.take(1, usize::MAX, None) {
        for mut call in calls.into_iter().filter(|call| call.is_wanted()) {
            let ran = files.check().and_then(|()| reader.run(&mut *call));
            if let Err(failure) = &ran {
                files.stop_if_corrupt(failure);
            }
            call.answer(ran.err().as_ref());
        }
    }
}
