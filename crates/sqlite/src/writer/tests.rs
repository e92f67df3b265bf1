//! The writer's queue and transactions: which calls share a commit is invisible to callers.

use std::{path::PathBuf, sync::mpsc};

use async_endpoints_core::{JobId, JobName, SystemClock, job, store::InsertOutcome, store::NewJob};
use futures_util::future::{join, join_all};

use super::*;
use crate::open::Synchronous;

/// A writer on a file that is deleted when the test ends.
struct Fixture {
    queue: Arc<Queue<State>>,
    folder: PathBuf,
}

impl Fixture {
    /// All waiting calls share a transaction, however slow the machine is.
    fn new() -> Self {
        Self::with_group_time(Duration::from_secs(3_600))
    }

    fn with_group_time(group_time: Duration) -> Self {
        let folder = std::env::temp_dir().join(JobId::random().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("jobs.db");
        let conn = open::writer(&path, Synchronous::Off).unwrap();
        let (hints, _) = broadcast::channel(1);
        let queue = Arc::new(Queue::new());
        let writer = Writer {
            data_version: data_version(&conn).unwrap(),
            state: State::new(conn),
            queue: Arc::clone(&queue),
            files: DatabaseFiles::opened(&path).unwrap(),
            clock: Arc::new(SystemClock::default()),
            hints,
            group_time,
            others_seen: None,
            yielded: Instant::now(),
            cut: None,
            readers: Vec::new(),
        };
        std::thread::spawn(move || writer.run());
        Self { queue, folder }
    }

    async fn insert(&self, bytes: usize) -> Result<InsertOutcome, Failure> {
        let job = new_job(bytes);
        self.queue.call(false, bytes, move |state| state.insert(&job)).await
    }

    async fn sql(&self, sql: &'static str) -> i64 {
        let step = move |state: &mut State| Ok(state.conn.query_row(sql, [], |row| row.get(0))?);
        self.queue.call(false, 0, step).await.unwrap()
    }

    /// Checks that rows and counts agree.
    async fn check(&self, jobs: i64) {
        assert_eq!(self.sql("SELECT count(*) FROM jobs").await, jobs);
        assert_eq!(self.sql("SELECT ifnull(sum(queued), 0) FROM types").await, jobs);
    }
}

impl Drop for Fixture {
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
async fn failed_step_leaves_other_steps_committed() {
    let fixture = Fixture::new();
    let (go, wait) = mpsc::channel::<()>();
    // Blocks the thread until all other calls wait, so that they share a transaction.
    let hold = fixture.queue.call(false, 0, move |_| wait.recv().or(Ok(())));
    let others = async {
        let failing = fixture.queue.call(false, 0, |state| {
            state.insert(&new_job(9))?;
            Err::<(), _>(Failure::Unreadable("a row".to_owned()))
        });
        let panicking = fixture.queue.call(false, 0, |state| {
            state.insert(&new_job(9))?;
            assert!(state.now.as_micros() < 0, "this panics on purpose");
            Ok(())
        });
        let fine = join_all((0..4).map(|_| fixture.insert(9)));
        let release = async { drop(go) };
        let (((first, second), fine), ()) = join(join(join(failing, panicking), fine), release).await;
        assert!(matches!(first, Err(Failure::Unreadable(_))) && matches!(second, Err(Failure::Panicked)));
        assert!(fine.iter().all(Result::is_ok), "{fine:?}");
    };
    let (held, ()) = join(hold, others).await;
    held.unwrap();
    fixture.check(4).await;
}

#[tokio::test]
async fn prune_step_stops_at_its_byte_limit() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        fixture.insert(1 << 20).await.unwrap();
    }
    // Expired, with tombstones that are kept.
    fixture.sql("UPDATE jobs SET status = 5, ended_at = created_at - retention * 3 / 2 RETURNING seq").await;
    let mut steps = Vec::new();
    loop {
        let pruned = fixture.queue.call(false, 0, |state| state.prune_jobs(100)).await.unwrap();
        steps.push(pruned.removed);
        if !pruned.reached_limit() {
            break;
        }
    }
    assert_eq!(steps, [4, 4, 2]);
    assert_eq!(fixture.sql("SELECT count(*) FROM jobs").await, 0);
}

#[tokio::test]
async fn prune_step_stops_at_its_job_limit() {
    let fixture = Fixture::new();
    for _ in 0..150 {
        fixture.insert(9).await.unwrap();
    }
    fixture.sql("UPDATE jobs SET status = 5, ended_at = created_at - retention * 3 / 2 RETURNING seq").await;
    for removed in [100, 50] {
        let pruned = fixture.queue.call(false, 0, |state| state.prune_jobs(u32::MAX)).await.unwrap();
        assert_eq!((pruned.removed, pruned.reached_limit()), (removed, removed == 100));
    }
    fixture.sql("UPDATE tombstones SET forget_at = 0 RETURNING 1").await;
    for removed in [100, 50] {
        assert_eq!(fixture.queue.call(false, 0, |state| state.prune_tombstones(u32::MAX)).await.unwrap(), removed);
    }
}

#[tokio::test]
async fn calls_beyond_the_time_limit_share_the_next_commit() {
    let fixture = Fixture::with_group_time(Duration::from_millis(10));
    let (go, wait) = mpsc::channel::<()>();
    let hold = fixture.queue.call(false, 0, move |_| wait.recv().or(Ok(())));
    let slow = |_| {
        fixture.queue.call(false, 0, |state| {
            std::thread::sleep(Duration::from_millis(10));
            state.insert(&new_job(9))
        })
    };
    let (held, (slow, ())) = join(hold, join(join_all((0..3).map(slow)), async { drop(go) })).await;
    held.unwrap();
    assert!(slow.iter().all(Result::is_ok), "{slow:?}");
    fixture.check(3).await;
}

#[tokio::test]
async fn full_disk_is_unavailable_until_space_is_freed() {
    let fixture = Fixture::new();
    fixture.insert(9).await.unwrap();
    fixture.sql("PRAGMA max_page_count = 60").await;
    let mut stored = 1;
    let refused = loop {
        match fixture.insert(30_000).await {
            Ok(_) => stored += 1,
            Err(fail) => break fail.into_error(&fixture.folder),
        }
        assert!(stored < 60, "the disk is full by now");
    };
    assert!(refused.is_transient() && refused.to_string().contains("the disk is full"), "{refused}");
    let crowd = join_all((0..4).map(|_| fixture.insert(60_000))).await;
    assert!(crowd.iter().all(Result::is_err), "{crowd:?}");
    fixture.check(stored).await;
    fixture.sql("PRAGMA max_page_count = 100000").await;
    fixture.insert(60_000).await.unwrap();
    fixture.check(stored + 1).await;
}

/// SQLite returns the same error for a disk that is remounted read-only after an error.
#[tokio::test]
async fn read_only_file_is_unavailable() {
    let fixture = Fixture::new();
    let turn = |state: &mut State| Ok(state.conn.execute_batch("PRAGMA query_only = ON")?);
    fixture.queue.call(false, 0, turn).await.unwrap();
    for _ in 0..2 {
        let refused = fixture.insert(9).await.unwrap_err().into_error(&fixture.folder);
        assert!(refused.is_transient() && refused.to_string().contains("the file is read-only"), "{refused}");
    }
}

#[tokio::test]
async fn urgent_call_runs_before_calls_left_over() {
    // Each call exceeds the time of a transaction.
    let fixture = Fixture::with_group_time(Duration::ZERO);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = |urgent, name: &'static str| {
        let order = Arc::clone(&order);
        fixture.queue.call(urgent, 0, move |_| {
            order.lock().unwrap().push(name);
            Ok(())
        })
    };
    let (go, wait) = mpsc::channel::<()>();
    let (began, mut first) = tokio::sync::mpsc::unbounded_channel();
    let (asked, end) = mpsc::channel::<()>();
    let hold = fixture.queue.call(false, 0, move |_| wait.recv().or(Ok(())));
    let long = fixture.queue.call(false, 0, move |_| {
        began.send(()).map_err(|_| Failure::Panicked)?;
        // Ends once the urgent call waits.
        end.recv().map_err(|_| Failure::Panicked)
    });
    let others = join(note(false, "second"), note(false, "third"));
    let urgent = async {
        drop(go);
        first.recv().await.unwrap();
        join(note(true, "urgent"), async { asked.send(()).unwrap() }).await.0
    };
    let ((held, long), (_, urgent)) = join(join(hold, long), join(others, urgent)).await;
    assert!(held.is_ok() && long.is_ok() && urgent.is_ok());
    assert_eq!(*order.lock().unwrap(), ["urgent", "second", "third"]);
}

#[tokio::test]
async fn urgent_call_runs_before_repeated_steps() {
    let fixture = Fixture::new();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = |urgent, name: &'static str| {
        let order = Arc::clone(&order);
        fixture.queue.call(urgent, 0, move |_| {
            order.lock().unwrap().push(name);
            Ok(())
        })
    };
    let (go, wait) = mpsc::channel::<()>();
    let (began, mut first) = tokio::sync::mpsc::unbounded_channel();
    let (asked, fail) = mpsc::channel::<()>();
    let hold = fixture.queue.call(false, 0, move |_| wait.recv().or(Ok(())));
    let failing = fixture.queue.call(false, 0, move |_| {
        began.send(()).map_err(|_| Failure::Panicked)?;
        // Fails once the urgent call waits.
        fail.recv().map_err(|_| Failure::Panicked)?;
        Err::<(), _>(Failure::Unreadable("a row".to_owned()))
    });
    let others = join(join(note(false, "first"), failing), note(false, "second"));
    let urgent = async {
        drop(go);
        first.recv().await.unwrap();
        join(note(true, "urgent"), async { asked.send(()).unwrap() }).await.0
    };
    let (held, (((one, failed), two), urgent)) = join(hold, join(others, urgent)).await;
    assert!(held.is_ok() && one.is_ok() && two.is_ok() && urgent.is_ok());
    assert!(matches!(failed, Err(Failure::Unreadable(_))), "{failed:?}");
    assert_eq!(*order.lock().unwrap(), ["first", "urgent", "first", "second"]);
}

#[tokio::test]
async fn call_that_waits_too_long_is_unavailable() {
    let fixture = Fixture::new();
    let (go, wait) = mpsc::channel::<()>();
    let hold = fixture.queue.call(false, 0, move |_| wait.recv().or(Ok(())));
    let late = async {
        let patience = async {
            std::thread::sleep(Duration::from_millis(20));
            fixture.queue.expire(Duration::from_millis(10));
        };
        let (refused, ()) = join(fixture.insert(9), patience).await;
        assert!(matches!(refused, Err(Failure::Unavailable(_))), "{refused:?}");
        drop(go);
    };
    let (held, ()) = join(hold, late).await;
    assert!(matches!(held, Err(Failure::Unavailable(_))), "it waited the longest");
    fixture.check(0).await;
}
