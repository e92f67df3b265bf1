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
mod tests {
    use std::{path::PathBuf, sync::mpsc};

    use async_endpoints_core::{JobId, JobName, JobStatus, SystemClock, job, store::Insert, store::NewJob};
    use futures_util::future::{join, join_all};

    use super::*;
    use crate::open::Synchronous;
    use crate::state::ASIDE;

    /// A writer on a file of its own, which goes when the test does.
    struct Rig {
        queue: Arc<Queue<State>>,
        folder: PathBuf,
    }

    impl Rig {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(JobId::random().to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join("jobs.db");
            let conn = open::writer(&path, Synchronous::Off).unwrap();
            let (queue, file) = (Arc::new(Queue::new()), File::opened(&path).unwrap());
            let (hints, _) = broadcast::channel(1);
            let seen = data_version(&conn).unwrap();
            let time = Arc::new(Time::new(Arc::new(SystemClock::default())));
            let writer = Writer {
                state: State::new(conn),
                queue: Arc::clone(&queue),
                file,
                time,
                hints,
                seen,
                shared: None,
                gap: Instant::now(),
                cut: None,
                uncounted: None,
                readers: Vec::new(),
            };
            std::thread::spawn(move || writer.run());
            Self { queue, folder }
        }

        async fn insert(&self, bytes: usize) -> Result<Insert, Fail> {
            let job = new_job(bytes);
            self.queue.ask(false, bytes, move |state| state.insert(&job)).await
        }

        async fn sql(&self, sql: &'static str) -> i64 {
            let ask = move |state: &mut State| Ok(state.conn.query_row(sql, [], |row| row.get(0))?);
            self.queue.ask(false, 0, ask).await.unwrap()
        }

        /// Rows and counts say the same.
        async fn check(&self, jobs: i64) {
            assert_eq!(self.sql("SELECT count(*) FROM jobs").await, jobs);
            assert_eq!(self.sql("SELECT ifnull(sum(queued), 0) FROM types").await, jobs);
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            self.queue.close();
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }

    fn new_job(bytes: usize) -> NewJob {
        let retention = Duration::from_secs(60);
        NewJob {
            id: JobId::random(),
            id_chosen: false,
            name: JobName::new("alpha").unwrap(),
            payload: vec![7; bytes].into(),
            terms: job::JobTerms { priority: Default::default(), max_retries: 0, max_losses: 0, retention },
            delay: Duration::ZERO,
            queue_limit: None,
            key: None,
            fingerprint: job::Digest([1; 32]),
            owner: None,
            trace: None,
        }
    }

    #[tokio::test]
    async fn a_step_that_fails_takes_nothing_of_the_others_with_it() {
        let rig = Rig::new();
        let (go, wait) = mpsc::channel::<()>();
        // Holds the thread until all others wait, so that they share a transaction.
        let hold = rig.queue.ask(false, 0, move |_| wait.recv().or(Ok(())));
        let others = async {
            let failing = rig.queue.ask(false, 0, |state| {
                state.insert(&new_job(9))?;
                Err::<(), _>(Fail::Bad("a row".to_owned()))
            });
            let panicking = rig.queue.ask(false, 0, |state| {
                state.insert(&new_job(9))?;
                assert!(state.now.as_micros() < 0, "this panics on purpose");
                Ok(())
            });
            let fine = join_all((0..4).map(|_| rig.insert(9)));
            let release = async { drop(go) };
            let (((first, second), fine), ()) = join(join(join(failing, panicking), fine), release).await;
            assert!(matches!(first, Err(Fail::Bad(_))) && matches!(second, Err(Fail::Panicked)));
            assert!(fine.iter().all(Result::is_ok), "{fine:?}");
        };
        let (held, ()) = join(hold, others).await;
        held.unwrap();
        rig.check(4).await;
    }

    /// Large values stand on many pages, and others wait while they go.
    #[tokio::test]
    async fn a_prune_is_bounded_in_bytes() {
        let rig = Rig::new();
        for _ in 0..10 {
            rig.insert(1 << 20).await.unwrap();
        }
        // Past their retention, and not yet forgotten.
        rig.sql("UPDATE jobs SET status = 5, ended_at = created_at - 90000000 RETURNING seq").await;
        let mut steps = Vec::new();
        loop {
            let pruned = rig.queue.ask(false, 0, |state| state.prune(100)).await.unwrap();
            steps.push(pruned.cut);
            if !pruned.more() {
                break;
            }
        }
        assert_eq!(steps, [4, 4, 2]);
        assert_eq!(rig.sql("SELECT count(*) FROM jobs").await, 0);
    }

    /// Others wait for each step, however many somebody asks for.
    #[tokio::test]
    async fn a_prune_is_bounded_in_jobs() {
        let rig = Rig::new();
        for _ in 0..150 {
            rig.insert(9).await.unwrap();
        }
        rig.sql("UPDATE jobs SET status = 5, ended_at = created_at - 90000000 RETURNING seq").await;
        for cut in [100, 50] {
            let pruned = rig.queue.ask(false, 0, |state| state.prune(u32::MAX)).await.unwrap();
            assert_eq!((pruned.cut, pruned.more()), (cut, cut == 100));
        }
        rig.sql("UPDATE tombstones SET forget_at = 0 RETURNING 1").await;
        for forgotten in [100, 50] {
            assert_eq!(rig.queue.ask(false, 0, |state| state.forget(u32::MAX)).await.unwrap(), forgotten);
        }
    }

    #[tokio::test]
    async fn calls_that_a_transaction_has_no_time_for_make_the_next() {
        let rig = Rig::new();
        let (go, wait) = mpsc::channel::<()>();
        let hold = rig.queue.ask(false, 0, move |_| wait.recv().or(Ok(())));
        let slow = |_| {
            rig.queue.ask(false, 0, |state| {
                std::thread::sleep(GROUP_TIME);
                state.insert(&new_job(9))
            })
        };
        let (held, (slow, ())) = join(hold, join(join_all((0..3).map(slow)), async { drop(go) })).await;
        held.unwrap();
        assert!(slow.iter().all(Result::is_ok), "{slow:?}");
        rig.check(3).await;
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_until_there_is_room() {
        let rig = Rig::new();
        rig.insert(9).await.unwrap();
        rig.sql("PRAGMA max_page_count = 60").await;
        let mut stored = 1;
        let refused = loop {
            match rig.insert(30_000).await {
                Ok(_) => stored += 1,
                Err(fail) => break fail.into_error(&rig.folder),
            }
            assert!(stored < 60, "the disk is full by now");
        };
        assert!(refused.is_transient() && refused.to_string().contains("the disk is full"), "{refused}");
        let crowd = join_all((0..4).map(|_| rig.insert(60_000))).await;
        assert!(crowd.iter().all(Result::is_err), "{crowd:?}");
        rig.check(stored).await;
        rig.sql("PRAGMA max_page_count = 100000").await;
        rig.insert(60_000).await.unwrap();
        rig.check(stored + 1).await;
    }

    /// SQLite says here what it says when a disk is mounted read-only because of an error.
    #[tokio::test]
    async fn a_file_that_turns_read_only_is_unavailable() {
        let rig = Rig::new();
        let turn = |state: &mut State| Ok(state.conn.execute_batch("PRAGMA query_only = ON")?);
        rig.queue.ask(false, 0, turn).await.unwrap();
        for _ in 0..2 {
            let refused = rig.insert(9).await.unwrap_err().into_error(&rig.folder);
            assert!(refused.is_transient() && refused.to_string().contains("the file is read-only"), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_cannot_wait_does_not_wait_for_what_a_transaction_had_no_time_for() {
        let rig = Rig::new();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |urgent, name: &'static str, pause| {
            let order = Arc::clone(&order);
            rig.queue.ask(urgent, 0, move |_| {
                std::thread::sleep(pause);
                order.lock().unwrap().push(name);
                Ok(())
            })
        };
        let (go, wait) = mpsc::channel::<()>();
        let (began, mut first) = tokio::sync::mpsc::unbounded_channel();
        let hold = rig.queue.ask(false, 0, move |_| wait.recv().or(Ok(())));
        let long = rig.queue.ask(false, 0, move |_| {
            began.send(()).map_err(|_| Fail::Panicked)?;
            std::thread::sleep(GROUP_TIME);
            Ok(())
        });
        let others = join(note(false, "second", GROUP_TIME), note(false, "third", GROUP_TIME));
        let urgent = async {
            drop(go);
            first.recv().await.unwrap();
            note(true, "urgent", Duration::ZERO).await
        };
        let ((held, long), (_, urgent)) = join(join(hold, long), join(others, urgent)).await;
        assert!(held.is_ok() && long.is_ok() && urgent.is_ok());
        assert_eq!(*order.lock().unwrap(), ["urgent", "second", "third"]);
    }

    #[tokio::test]
    async fn what_cannot_wait_does_not_wait_for_what_is_done_again() {
        let rig = Rig::new();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |urgent, name: &'static str| {
            let order = Arc::clone(&order);
            rig.queue.ask(urgent, 0, move |_| {
                order.lock().unwrap().push(name);
                Ok(())
            })
        };
        let (go, wait) = mpsc::channel::<()>();
        let (began, mut first) = tokio::sync::mpsc::unbounded_channel();
        let (asked, fail) = mpsc::channel::<()>();
        let hold = rig.queue.ask(false, 0, move |_| wait.recv().or(Ok(())));
        let failing = rig.queue.ask(false, 0, move |_| {
            began.send(()).map_err(|_| Fail::Panicked)?;
            // It fails when the urgent call waits.
            fail.recv().map_err(|_| Fail::Panicked)?;
            Err::<(), _>(Fail::Bad("a row".to_owned()))
        });
        let others = join(join(note(false, "first"), failing), note(false, "second"));
        let urgent = async {
            drop(go);
            first.recv().await.unwrap();
            join(note(true, "urgent"), async { asked.send(()).unwrap() }).await.0
        };
        let (held, (((one, failed), two), urgent)) = join(hold, join(others, urgent)).await;
        assert!(held.is_ok() && one.is_ok() && two.is_ok() && urgent.is_ok());
        assert!(matches!(failed, Err(Fail::Bad(_))), "{failed:?}");
        assert_eq!(*order.lock().unwrap(), ["first", "urgent", "first", "second"]);
    }

    /// What one judged in a transaction that was taken back may no longer be so, or others may have done it.
    #[tokio::test]
    async fn only_what_is_as_it_was_found_is_put_aside_and_what_it_was_is_kept() {
        let rig = Rig::new();
        rig.insert(9).await.unwrap();
        let seq = rig.sql("SELECT seq FROM jobs").await;
        let put_aside = |found| rig.queue.ask(false, 0, move |state| state.put_damaged_aside(seq, found, "a page"));
        put_aside(Some(JobStatus::Scheduled)).await.unwrap();
        assert_eq!(rig.sql("SELECT count(*) FROM quarantine").await, 0);
        rig.check(1).await;
        for found in [Some(JobStatus::Queued), Some(JobStatus::Queued), None] {
            put_aside(found).await.unwrap();
            assert_eq!(rig.sql("SELECT status FROM quarantine").await, JobStatus::Queued as i64);
            assert_eq!(rig.sql("SELECT status FROM jobs").await, 9);
            assert_eq!(rig.sql("SELECT sum(queued) FROM types").await, 0);
        }
        rig.queue.ask(false, 0, |state| state.put_damaged_aside(99, None, "a page")).await.unwrap();
        assert_eq!(rig.sql("SELECT count(*) FROM quarantine").await, 1);
    }

    /// A damaged page of an index is in the way of every job: they stay where they are until it is mended.
    #[tokio::test]
    async fn no_more_stand_aside_than_some_pages_hold() {
        let rig = Rig::new();
        for _ in 0..=ASIDE {
            rig.insert(9).await.unwrap();
        }
        let mut aside = 0;
        let refused = loop {
            let seq = rig.sql("SELECT min(seq) FROM jobs WHERE status = 0").await;
            let put_aside = move |state: &mut State| state.put_damaged_aside(seq, Some(JobStatus::Queued), "a page");
            match rig.queue.ask(false, 0, put_aside).await {
                Ok(()) => aside += 1,
                Err(fail) => break fail,
            }
        };
        assert!(matches!(&refused, Fail::Bad(why) if why == "a page"), "{refused:?}");
        assert_eq!(aside, ASIDE);
        assert_eq!(rig.sql("SELECT count(*) FROM jobs WHERE status = 0").await, 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_too_long_is_sent_away() {
        let rig = Rig::new();
        let (go, wait) = mpsc::channel::<()>();
        let hold = rig.queue.ask(false, 0, move |_| wait.recv().or(Ok(())));
        let late = async {
            let patience = async {
                std::thread::sleep(Duration::from_millis(20));
                rig.queue.expire(Duration::from_millis(10));
            };
            let (refused, ()) = join(rig.insert(9), patience).await;
            assert!(matches!(refused, Err(Fail::Unavailable(_))), "{refused:?}");
            drop(go);
        };
        let (held, ()) = join(hold, late).await;
        assert!(matches!(held, Err(Fail::Unavailable(_))), "it was the first to wait");
        rig.check(0).await;
    }
}
