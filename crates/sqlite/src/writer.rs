//! The thread that writes: takes the calls that wait, makes each one a step of one transaction, and answers when
//! that is on disk. Waiting for the disk is paid once for all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{Clock, JobName, store::Hint};
use rusqlite::Connection;
use tokio::sync::broadcast;

use crate::{
    fail::Fail,
    file::File,
    ledger::Ledger,
    queue::{Call, Found, Queue},
    state::State,
};

/// Calls, their bytes and the time that one transaction takes at most: whoever comes meanwhile waits that long.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
const GROUP_TIME: Duration = Duration::from_millis(50);

/// How often to look whether another process wrote.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Writer {
    pub(crate) state: State,
    pub(crate) queue: Arc<Queue<State>>,
    pub(crate) file: File,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hints: broadcast::Sender<Hint>,
    /// What SQLite counts up when another connection commits; our own commits leave it.
    pub(crate) seen: i64,
}

/// What SQLite counts up when another connection commits.
pub(crate) fn data_version(conn: &Connection) -> Result<i64, Fail> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

type Calls = Vec<Box<dyn Call<State>>>;

impl Writer {
    /// Writes until nobody can ask any more.
    pub(crate) fn run(mut self) {
        loop {
            match self.queue.take(GROUP, GROUP_BYTES, Some(LOOK)) {
                Found::Calls(calls) => self.group(calls),
                // What cannot be looked at now is looked at the next time.
                Found::Nothing => drop(self.look()),
                Found::Closed => return,
            }
        }
    }

    /// One transaction for these calls, and their answers.
    fn group(&mut self, mut calls: Calls) {
        calls.retain(|call| call.wanted());
        let mut hints = Vec::new();
        while !calls.is_empty() {
            let mut done = 0;
            let committed = self.commit(&mut calls, &mut done, &mut hints);
            let refused = committed.err().map(|fail| self.lost(fail));
            if refused.is_none() {
                // Nobody listening is no error.
                hints.drain(..).for_each(|hint| drop(self.hints.send(hint)));
            }
            hints.clear();
            // Those that this transaction had no time for make the next one; if it failed, nobody waits for another.
            let rest = if refused.is_some() { Vec::new() } else { calls.split_off(done) };
            for call in std::mem::replace(&mut calls, rest) {
                call.answer(refused.as_deref());
            }
        }
    }

    /// Takes back what failed, in the file and in what is known of it.
    fn lost(&mut self, fail: Fail) -> String {
        if !self.state.conn.is_autocommit() {
            // If even this fails, the next BEGIN does, and says so.
            drop(self.state.conn.execute_batch("ROLLBACK"));
        }
        self.state.ledger = Ledger::default();
        match fail {
            Fail::Unavailable(why) => why,
            Fail::Sql(error) => error.to_string(),
            other => other.into_error(self.file.path()).to_string(),
        }
    }

    /// All or nothing: if the process dies in here, none of it happened, and nobody was told that it did.
    fn commit(&mut self, calls: &mut Calls, done: &mut usize, hints: &mut Vec<Hint>) -> Result<(), Fail> {
        self.file.check()?;
        let began = Instant::now();
        self.execute("BEGIN IMMEDIATE")?;
        self.look()?;
        for call in calls {
            self.step(&mut **call, hints)?;
            *done += 1;
            if began.elapsed() > GROUP_TIME {
                break;
            }
        }
        self.state.ledger.flush(&self.state.conn)?;
        self.execute("COMMIT")?;
        // A file that was unlinked meanwhile took the commit with it.
        self.file.check()
    }

    /// One call, which takes nothing of the others with it if it fails.
    fn step(&mut self, call: &mut dyn Call<State>, hints: &mut Vec<Hint>) -> Result<(), Fail> {
        self.execute("SAVEPOINT step")?;
        self.state.begin(self.clock.now());
        if call.run(&mut self.state) {
            self.state.keep(hints);
            return self.execute("RELEASE step");
        }
        self.state.undo();
        if self.state.conn.is_autocommit() {
            // A full disk, for one, makes SQLite give the whole transaction up.
            return Err(Fail::Unavailable("a write failed and took its transaction with it".to_owned()));
        }
        self.execute("ROLLBACK TO step")?;
        self.execute("RELEASE step")
    }

    fn execute(&self, sql: &str) -> Result<(), Fail> {
        self.state.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Whether another process wrote since the last look. What it changed is not told by SQLite: so every type with
    /// runnable jobs has work, and everybody else looks again.
    fn look(&mut self) -> Result<(), Fail> {
        let conn = &self.state.conn;
        let version = data_version(conn)?;
        if std::mem::replace(&mut self.seen, version) == version {
            return Ok(());
        }
        self.state.ledger = Ledger::default();
        if self.hints.receiver_count() > 0 {
            let mut runnable = conn.prepare_cached("SELECT name FROM types WHERE queued > 0")?;
            let names: Vec<String> = runnable.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let names = names.iter().filter_map(|name| JobName::new(name).ok());
            names.for_each(|name| drop(self.hints.send(Hint::Work(name))));
            drop(self.hints.send(Hint::Lagged));
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// Whoever asks a thread that ended is told so.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}
