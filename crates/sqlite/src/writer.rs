//! The thread that writes: takes the calls that wait, makes each one a step of one transaction, and answers when
//! that is on disk. Waiting for the disk is paid once for all of them.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_endpoints_core::{JobName, store::Hint};
use rusqlite::Connection;
use tokio::sync::broadcast;

use crate::{
    fail::Fail,
    file::File,
    ledger::Ledger,
    open,
    queue::{Call, Found, Queue},
    space::{self, CUTS, LOG_BYTES},
    state::State,
    time::Time,
};

/// Calls, their bytes and the time that one transaction takes at most: whoever comes meanwhile waits that long.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
const GROUP_TIME: Duration = Duration::from_millis(50);

/// How often to look whether another process wrote.
const LOOK: Duration = Duration::from_millis(50);

/// Another process that wrote within this time is still there, however long it was kept out.
const ALONE: Duration = Duration::from_secs(60);

/// How often a busy process lets others write, and for how long.
const GAPS: Duration = Duration::from_millis(20);
const GAP: Duration = Duration::from_millis(3);

pub(crate) struct Writer {
    pub(crate) state: State,
    pub(crate) queue: Arc<Queue<State>>,
    pub(crate) file: File,
    pub(crate) time: Arc<Time>,
    pub(crate) hints: broadcast::Sender<Hint>,
    /// What SQLite counts up when another connection commits; our own commits leave it.
    pub(crate) seen: i64,
    /// When another process was last seen to have written.
    pub(crate) shared: Option<Instant>,
    /// When others last had a chance to.
    pub(crate) gap: Instant,
    /// When the log was last found too long.
    pub(crate) cut: Option<Instant>,
    /// The latest minute that has no slots, since the page that they stand on is damaged.
    pub(crate) uncounted: Option<i64>,
    /// The threads that read.
    pub(crate) readers: Vec<JoinHandle<()>>,
}

/// What SQLite counts up when another connection commits.
pub(crate) fn data_version(conn: &Connection) -> Result<i64, Fail> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

type Calls = Vec<Box<dyn Call<State>>>;

impl Writer {
    /// Writes until nobody can ask any more.
    pub(crate) fn run(mut self) {
        // It never fails; and if it did, the writer would wait as it did when the file was opened.
        drop(self.wait_for_turns());
        loop {
            match self.queue.take(GROUP, GROUP_BYTES, Some(LOOK)) {
                Found::Calls(calls) => {
                    self.group(calls);
                    self.keep_the_log_short();
                    self.leave_a_gap();
                }
                // What cannot be looked at now is looked at the next time.
                Found::Nothing => drop(self.look()),
                Found::Closed => break,
            }
        }
        // Whoever closes the file last copies the log back into it, and a reader could not.
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }

    /// No longer than its store is there: nobody waits for what it would do.
    fn wait_for_turns(&mut self) -> rusqlite::Result<()> {
        let queue = Arc::clone(&self.queue);
        open::wait_for_turns(&mut self.state.conn, move || !queue.is_closed())
    }

    /// SQLite gives turns to whoever happens to ask at the right moment: a process with calls without end would keep
    /// all others out. So one that is not alone leaves a gap now and then, longer than the others' steps.
    fn leave_a_gap(&mut self) {
        let alone = self.shared.is_none_or(|seen| seen.elapsed() > ALONE);
        if !self.queue.is_waiting() {
            self.gap = Instant::now();
        } else if !alone && self.gap.elapsed() > GAPS {
            std::thread::sleep(GAP);
            self.gap = Instant::now();
        }
    }

    /// All that was committed stays so, whatever comes of this.
    fn keep_the_log_short(&mut self) {
        let long = self.file.log_bytes() > LOG_BYTES && self.cut.is_none_or(|last| last.elapsed() > CUTS);
        // Ours may be another log than the one that has its name now.
        if long && self.file.check().is_ok() {
            drop(space::cut_log(&mut self.state.conn));
            drop(self.wait_for_turns());
            self.cut = Some(Instant::now());
        }
    }

    /// One transaction for these calls, and their answers.
    fn group(&mut self, mut calls: Calls) {
        calls.retain(|call| call.wanted());
        let mut hints = Vec::new();
        while !calls.is_empty() {
            let mut done = 0;
            let uncounted = self.uncounted;
            let refused = match self.commit(&mut calls, &mut done, &mut hints) {
                // It takes nothing of the others with it: they do what they did again, without it. That hardly ever
                // happens; savepoints, which spare it, would cost all others a sixth more. Nor would they help against
                // damage, after which SQLite writes nothing more in the same transaction.
                Ok(Some(failed)) => {
                    self.take_back();
                    hints.clear();
                    calls.remove(failed).answer(None);
                    // Those that cannot wait do not wait for what is done again.
                    calls.splice(..0, self.queue.take_urgent());
                    continue;
                }
                Ok(None) => None,
                Err(_) if self.uncounted != uncounted => {
                    self.take_back();
                    hints.clear();
                    continue;
                }
                Err(refused) => Some(refused),
            };
            let rest = match &refused {
                None => {
                    // Nobody listening is no error.
                    hints.drain(..).for_each(|hint| drop(self.hints.send(hint)));
                    self.rest(&mut calls, done)
                }
                Some(fail) => {
                    self.take_back();
                    if fail.is_busy() {
                        calls.extend(self.came_meanwhile());
                    }
                    Vec::new()
                }
            };
            hints.clear();
            for call in std::mem::replace(&mut calls, rest) {
                call.answer(refused.as_ref());
            }
        }
    }

    /// Those that the transaction had no time for make the next one, after those that cannot wait.
    fn rest(&self, calls: &mut Calls, done: usize) -> Calls {
        let mut rest = calls.split_off(done);
        if !rest.is_empty() {
            rest.splice(..0, self.queue.take_urgent());
        }
        rest
    }

    /// Those that waited for the same lock: nobody waits for it twice.
    fn came_meanwhile(&self) -> Calls {
        match self.queue.take(usize::MAX, usize::MAX, Some(Duration::ZERO)) {
            Found::Calls(calls) => calls,
            Found::Nothing | Found::Closed => Vec::new(),
        }
    }

    /// Takes back what failed, in the file and in what is known of it.
    fn take_back(&mut self) {
        if !self.state.conn.is_autocommit() {
            // If even this fails, the next BEGIN does, and says so.
            drop(self.state.conn.execute_batch("ROLLBACK"));
        }
        self.state.ledger = Ledger::default();
    }

    /// All or nothing: if the process dies in here, none of it happened, and nobody was told that it did. Returns which
    /// call failed, if one did: then nothing is committed.
    fn commit(&mut self, calls: &mut Calls, done: &mut usize, hints: &mut Vec<Hint>) -> Result<Option<usize>, Fail> {
        self.file.check()?;
        let began = Instant::now();
        self.execute("BEGIN IMMEDIATE")?;
        self.look()?;
        let changes = self.state.conn.total_changes();
        for call in calls {
            // Its caller may have left, or been sent away, since the transaction began.
            if call.wanted() {
                self.state.begin(self.time.now());
                if !call.run(&mut self.state) {
                    return self.failed(*done).map(Some);
                }
                self.state.keep(hints);
            }
            *done += 1;
            if began.elapsed() > GROUP_TIME {
                break;
            }
        }
        // A transaction that wrote nothing needs no disk.
        if self.state.conn.total_changes() != changes {
            self.save_slots()?;
            self.state.ledger.flush(&self.state.conn, self.state.now)?;
        }
        self.execute("COMMIT")?;
        // A file that was unlinked meanwhile took the commit with it.
        self.file.check().map(|()| None)
    }

    /// Counts by minute are not worth refusing anything for: where they cannot be written, all is done again without.
    fn save_slots(&mut self) -> Result<(), Fail> {
        let minute = Some(self.state.now.minute());
        let saved = self.state.ledger.save_slots(&self.state.conn, self.uncounted != minute);
        if saved.as_ref().is_err_and(Fail::is_damage) {
            self.uncounted = minute;
        }
        saved
    }

    fn failed(&self, at: usize) -> Result<usize, Fail> {
        if self.state.conn.is_autocommit() {
            // A full disk, for one, makes SQLite give the whole transaction up.
            return Err(Fail::Unavailable("a write failed and took its transaction with it".to_owned()));
        }
        Ok(at)
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
        if version == self.seen {
            return Ok(());
        }
        open::check_version(conn)?;
        self.time.catch_up(conn)?;
        self.shared = Some(Instant::now());
        self.state.ledger = Ledger::default();
        if self.hints.receiver_count() > 0 {
            let mut runnable = conn.prepare_cached("SELECT name FROM types WHERE queued > 0")?;
            let names: Vec<String> = runnable.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let names = names.iter().filter_map(|name| JobName::new(name).ok());
            names.for_each(|name| drop(self.hints.send(Hint::Work(name))));
            drop(self.hints.send(Hint::Lagged));
        }
        // Last: what failed is looked at again.
        self.seen = version;
        Ok(())
    }
}

impl Drop for Writer {
    /// Whoever asks a thread that ended is told so.
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

#[cfg(test)]
mod tests;
