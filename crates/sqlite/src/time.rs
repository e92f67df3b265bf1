//! The time that all processes of a file agree on. Must not know what is decided by it.
//!
//! Clocks of processes differ: one that starts after the machine's clock was set reads another hour. So the file keeps
//! the latest time that anything written was decided by, and nobody decides by an earlier one. Each process adds to its
//! own clock what that is behind the file, or takes away what it is ahead of others that work, and lets a sixteenth of
//! the passing time heal the difference: the sum never goes backwards, and what a wrong clock did does not stay for ever.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_endpoints_core::{Clock, Timestamp};
use rusqlite::Connection;

use crate::fail::Fail;

/// The share of the passing time by which a difference shrinks. Leases last that much longer or shorter meanwhile.
const HEALS: i64 = 16;

/// A clock that is not further ahead is believed at once.
const NEAR: Duration = Duration::from_secs(60);

/// How long to look whether others work: workers write every second.
const OTHERS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// The time of a process, shared by its threads.
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    skew: Mutex<Skew>,
}

/// How far the file's time was ahead of the clock, or behind it, when the clock said `at`. In microseconds.
#[derive(Clone, Copy)]
struct Skew {
    at: i64,
    by: i64,
}

impl Skew {
    /// The file's time.
    fn time(self, clock: i64) -> i64 {
        let healed = clock.saturating_sub(self.at).max(0) / HEALS;
        clock.saturating_add(self.by.signum() * self.by.saturating_abs().saturating_sub(healed).max(0))
    }
}

impl Time {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, skew: Mutex::new(Skew { at: 0, by: 0 }) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::from_micros(skew.time(self.clock.now().as_micros()))
    }

    /// Goes on from the file's time, if that is later: at opening, when another process wrote, and in each snapshot.
    pub(crate) fn catch_up(&self, conn: &Connection) -> Result<(), Fail> {
        self.go_on_from(latest(conn)?, false);
        Ok(())
    }

    /// At opening: a clock far ahead of the file is right if nobody worked meanwhile, and likely wrong beside others.
    pub(crate) fn join(&self, conn: &Connection) -> Result<(), Fail> {
        let before = latest(conn)?;
        let is_far = self.now().since(Timestamp::from_micros(before)) > NEAR;
        let others_work = is_far && others_work(conn, before)?;
        self.go_on_from(latest(conn)?, others_work);
        Ok(())
    }

    fn go_on_from(&self, latest: i64, even_if_earlier: bool) {
        let mut skew = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.clock.now().as_micros();
        if even_if_earlier || latest > skew.time(at) {
            *skew = Skew { at, by: latest.saturating_sub(at) };
        }
    }
}

fn latest(conn: &Connection) -> Result<i64, Fail> {
    Ok(conn.prepare_cached("SELECT latest FROM meta WHERE one = 1")?.query_row([], |row| row.get(0))?)
}

/// Whether the file's time moves. Workers that stopped in order left no beat, and are not waited for.
fn others_work(conn: &Connection, before: i64) -> Result<bool, Fail> {
    let began = Instant::now();
    let mut beats = conn.prepare_cached("SELECT 1 FROM beats LIMIT 1")?;
    while beats.exists([])? && began.elapsed() < OTHERS {
        if latest(conn)? != before {
            return Ok(true);
        }
        thread::sleep(LOOK);
    }
    Ok(false)
}
