//! The time that all processes of a file agree on. Must not know what is decided by it.
//!
//! Clocks of processes differ: one that starts after the machine's clock was set reads another hour. So the file keeps
//! the latest time that anything written was decided by, and nobody decides by an earlier one: each process adds to its
//! own clock whatever that was ever behind the file, and the sum never goes backwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{Clock, Timestamp};
use rusqlite::Connection;

use crate::fail::Fail;

/// The time of a process, shared by its threads.
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    /// What the clock was ever behind the file, in microseconds. Only grows.
    behind: AtomicI64,
}

impl Time {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, behind: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now() + Duration::from_micros(self.behind.load(Ordering::Acquire).unsigned_abs())
    }

    /// Goes on from the file's time, if that is later: at opening, when another process wrote, and in each snapshot.
    pub(crate) fn catch_up(&self, conn: &Connection) -> Result<(), Fail> {
        let latest: i64 =
            conn.prepare_cached("SELECT latest FROM meta WHERE one = 1")?.query_row([], |row| row.get(0))?;
        let behind = latest.saturating_sub(self.clock.now().as_micros());
        self.behind.fetch_max(behind, Ordering::AcqRel);
        Ok(())
    }
}
