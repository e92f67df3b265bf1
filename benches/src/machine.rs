//! The limit of the machine for a durable store in a file: commits of rows as large as jobs through a bare connection.

use std::{path::Path, time::Instant};

use async_endpoints::core::JobId;
use rusqlite::{Connection, params};

use crate::{
    jobs::PAYLOAD,
    report::{Result, per_second},
};

/// Number of rows in a batched commit.
pub(crate) const BATCH: u32 = 64;

/// A table with one index, in a file with synchronous commits.
pub(crate) struct Machine {
    connection: Connection,
    next: i64,
}

impl Machine {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE jobs (id BLOB PRIMARY KEY, state INTEGER, due INTEGER, payload BLOB) WITHOUT ROWID;
             CREATE INDEX queue ON jobs (state, due);",
        )?;
        Ok(Self { connection, next: 0 })
    }

    /// Rows per second, with this number of rows in each commit.
    pub(crate) fn commits(&mut self, commits: u32, rows: u32) -> Result<f64> {
        let began = Instant::now();
        for _ in 0..commits {
            let commit = self.connection.transaction()?;
            for _ in 0..rows {
                let mut insert = commit.prepare_cached("INSERT INTO jobs VALUES (?1, 0, ?2, ?3)")?;
                insert.execute(params![JobId::random().0.as_bytes(), self.next, [b'x'; PAYLOAD]])?;
                self.next += 1;
            }
            commit.commit()?;
        }
        Ok(per_second(commits * rows, began.elapsed()))
    }
}
