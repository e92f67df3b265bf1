//! The writer's queue and its transactions, tried from inside: what callers cannot see is who shares a commit with whom.

use std::{path::PathBuf, sync::mpsc};

use async_endpoints_core::{JobId, JobName, JobStatus, SystemClock, job, store::InsertOutcome, store::NewJob};
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

    async fn insert(&self, bytes: usize) -> Result<InsertOutcome, Fail> {
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
    let name = JobName::new("alpha").unwrap();
    NewJob::new(JobId::random(), name, vec![7; bytes].into(), job::JobTerms::default(), job::Digest([1; 32]))
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
