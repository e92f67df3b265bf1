//! The thread that writes: runs waiting calls as steps of one transaction and answers them after the commit, so that
//! they share one wait for the disk.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_endpoints_core::{Clock, JobName, store::Hint};
use rusqlite::Connection;
use tokio::sync::broadcast;

use crate::{
    failure::Failure,
    files::DatabaseFiles,
    ledger::Ledger,
    open,
    queue::{Call, Queue, Taken},
    space::{self, CUT_INTERVAL, LOG_BYTES},
    state::State,
};

/// Maximum number of calls in one transaction, their bytes and the time they take.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
pub(crate) const GROUP_TIME: Duration = Duration::from_millis(50);

/// How often an idle writer checks for commits of other processes.
const POLL: Duration = Duration::from_millis(50);

/// How long after its last commit another process counts as present.
const PRESENCE: Duration = Duration::from_secs(60);

/// How often a busy process yields the lock to other processes, and for how long.
const YIELD_INTERVAL: Duration = Duration::from_millis(20);
const YIELD: Duration = Duration::from_millis(3);

pub(crate) struct Writer {
    pub(crate) state: State,
    pub(crate) queue: Arc<Queue<State>>,
    pub(crate) files: DatabaseFiles,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hints: broadcast::Sender<Hint>,
    /// Maximum time of one transaction: later calls wait that long.
    pub(crate) group_time: Duration,
    /// SQLite's counter of commits by other connections, as last seen.
    pub(crate) data_version: i64,
    /// When a commit of another process was last seen.
    pub(crate) others_seen: Option<Instant>,
    /// When other processes last had a chance to write.
    pub(crate) yielded: Instant,
    /// When the log was last cut.
    pub(crate) cut: Option<Instant>,
    /// The threads that read.
    pub(crate) readers: Vec<JoinHandle<()>>,
}

/// SQLite's counter of commits by other connections.
pub(crate) fn data_version(conn: &Connection) -> Result<i64, Failure> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

type Calls = Vec<Box<dyn Call<State>>>;

/// Outcome of a transaction.
enum Commit {
    Done,
    /// The step at this index failed: the others have to be repeated without it.
    StepFailed(usize),
}

impl Writer {
    /// Runs calls until the queue is closed.
    pub(crate) fn run(mut self) {
        // Setting a busy handler does not fail. If it did, the one of the opened connection would stay.
        drop(self.set_busy_handler());
        loop {
            match self.queue.take(GROUP, GROUP_BYTES, Some(POLL)) {
                Taken::Calls(calls) => {
                    self.run_group(calls);
                    self.cut_long_log();
                    self.yield_lock();
                }
                Taken::Timeout => {
                    // Other failures are left to the next check.
                    if let Err(failure) = self.check_other_processes() {
                        self.files.stop_if_corrupt(&failure);
                    }
                }
                Taken::Closed => break,
            }
        }
        // The last connection to close copies the log into the file, which a read-only connection cannot do.
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }

    /// Waits for the lock only as long as the store is open.
    fn set_busy_handler(&mut self) -> rusqlite::Result<()> {
        let queue = Arc::clone(&self.queue);
        open::set_busy_handler(&mut self.state.conn, move || !queue.is_closed())
    }

    /// Pauses at intervals for longer than other processes wait between two tries. SQLite has no queue for the lock:
    /// without pauses a busy process would keep the others out.
    fn yield_lock(&mut self) {
        let shared = self.others_seen.is_some_and(|seen| seen.elapsed() <= PRESENCE);
        if !self.queue.is_waiting() {
            self.yielded = Instant::now();
        } else if shared && self.yielded.elapsed() > YIELD_INTERVAL {
            std::thread::sleep(YIELD);
            self.yielded = Instant::now();
        }
    }

    /// Cuts the log if it is too long. A failure is no loss: what is committed stays committed.
    fn cut_long_log(&mut self) {
        let long = self.files.log_bytes() > LOG_BYTES && self.cut.is_none_or(|last| last.elapsed() > CUT_INTERVAL);
        // After a replacement, the file of that name is the log of another database.
        if long && self.files.check().is_ok() {
            drop(space::cut_log(&mut self.state.conn));
            drop(self.set_busy_handler());
            self.cut = Some(Instant::now());
        }
    }

    /// Runs calls in transactions and answers them.
    fn run_group(&mut self, mut calls: Calls) {
        calls.retain(|call| call.is_wanted());
        let mut hints = Vec::new();
        while !calls.is_empty() {
            let mut done = 0;
            let committed = self.commit(&mut calls, &mut done, &mut hints);
            if !matches!(committed, Ok(Commit::Done)) {
                self.roll_back();
                hints.clear();
            }
            let (failure, rest) = match committed {
                Ok(Commit::Done) => {
                    // Without a listener, sending fails.
                    hints.drain(..).for_each(|hint| drop(self.hints.send(hint)));
                    (None, self.rest(&mut calls, done))
                }
                // The other steps are repeated without the failed step. Failed steps are rare; savepoints, which would
                // avoid the repetition, slow all other calls down by a sixth.
                Ok(Commit::StepFailed(index)) => {
                    calls.remove(index).answer(None);
                    calls.splice(..0, self.queue.take_urgent());
                    continue;
                }
                Err(failure) => {
                    self.files.stop_if_corrupt(&failure);
                    if failure.is_busy() {
                        calls.extend(self.arrived_meanwhile());
                    }
                    (Some(failure), Vec::new())
                }
            };
            for call in std::mem::replace(&mut calls, rest) {
                call.answer(failure.as_ref());
            }
        }
    }

    /// Returns the calls that the transaction had no time for, preceded by urgent calls: the next transaction.
    fn rest(&self, calls: &mut Calls, done: usize) -> Calls {
        let mut rest = calls.split_off(done);
        if !rest.is_empty() {
            rest.splice(..0, self.queue.take_urgent());
        }
        rest
    }

    /// Returns the calls that arrived while the transaction waited for the lock: they do not wait for it again.
    fn arrived_meanwhile(&self) -> Calls {
        match self.queue.take(usize::MAX, usize::MAX, Some(Duration::ZERO)) {
            Taken::Calls(calls) => calls,
            Taken::Timeout | Taken::Closed => Vec::new(),
        }
    }

    /// Rolls the transaction back and drops cached counts.
    fn roll_back(&mut self) {
        if !self.state.conn.is_autocommit() {
            // If the rollback fails, the next BEGIN fails too and reports why.
            drop(self.state.conn.execute_batch("ROLLBACK"));
        }
        self.state.ledger = Ledger::default();
    }

    /// Runs calls as one transaction. If the process dies in here, nothing is committed and no call is answered.
    fn commit(&mut self, calls: &mut Calls, done: &mut usize, hints: &mut Vec<Hint>) -> Result<Commit, Failure> {
        self.files.check()?;
        let began = Instant::now();
        self.execute("BEGIN IMMEDIATE")?;
        self.check_other_processes()?;
        let changes = self.state.conn.total_changes();
        for call in calls {
            // The caller may have left, or may have timed out, since the transaction began.
            if call.is_wanted() {
                self.state.begin(self.clock.now());
                if let Err(failure) = call.run(&mut self.state) {
                    return self.failed(*done, failure);
                }
                self.state.end_step(hints);
            }
            *done += 1;
            if began.elapsed() > self.group_time {
                break;
            }
        }
        // A transaction without changes needs no disk.
        if self.state.conn.total_changes() != changes {
            self.state.ledger.flush(&self.state.conn)?;
        }
        self.execute("COMMIT")?;
        // If the file was deleted meanwhile, the commit is lost with it.
        self.files.check().map(|()| Commit::Done)
    }

    fn failed(&self, index: usize, failure: Failure) -> Result<Commit, Failure> {
        if matches!(failure, Failure::Corrupt(_)) {
            return Err(failure);
        }
        if self.state.conn.is_autocommit() {
            // After some errors, such as a full disk, SQLite has already rolled the transaction back.
            return Err(Failure::Unavailable("a write failed and its transaction was rolled back".to_owned()));
        }
        Ok(Commit::StepFailed(index))
    }

    fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.state.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Checks whether another process committed. SQLite does not report what changed: so each type with queued jobs gets
    /// a hint, and other listeners are asked to read again.
    fn check_other_processes(&mut self) -> Result<(), Failure> {
        let conn = &self.state.conn;
        let version = data_version(conn)?;
        if version == self.data_version {
            return Ok(());
        }
        open::check_schema(conn)?;
        self.others_seen = Some(Instant::now());
        self.state.ledger = Ledger::default();
        if self.hints.receiver_count() > 0 {
            let mut queued = conn.prepare_cached("SELECT name FROM types WHERE queued > 0")?;
            let names: Vec<String> = queued.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let names = names.iter().filter_map(|name| JobName::new(name).ok());
            names.for_each(|name| drop(self.hints.send(Hint::Work(name))));
            drop(self.hints.send(Hint::Lagged));
        }
        // Last, so that a failed check is repeated.
        self.data_version = version;
        Ok(())
    }
}

impl Drop for Writer {
    /// Answers waiting and later calls as unavailable, also if the thread panicked.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

#[cfg(test)]
mod tests;
