//! Disk space: after a burst, beside continuous readers, and copies made while jobs run.

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, SystemClock,
    store::{JobLookup, NewJob, Outcome, StatsQuery},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job},
};
use common::{Folder, HOUR, claim, end, open};
use futures_util::future::join_all;
use rusqlite::Connection;

fn large(bytes: usize) -> NewJob {
    NewJob { payload: vec![7; bytes].into(), ..job("alpha", HOUR) }
}

async fn insert(store: &SqliteStore, jobs: Vec<NewJob>) {
    let answers = join_all(jobs.into_iter().map(|job| store.insert(job))).await;
    answers.into_iter().for_each(|answer| drop(answer.expect("the job is accepted")));
}

/// Claims all jobs and fails them, which keeps their payloads.
async fn fail_all(store: &SqliteStore) {
    loop {
        let attempts = store.claim(&claim(64)).await.expect("the store answers").attempts;
        if attempts.is_empty() {
            return;
        }
        let failed: Vec<_> = attempts.iter().map(|one| end(one, Outcome::Failed { error: error("F") })).collect();
        store.settle(&failed).await.expect("the store answers");
    }
}

/// Size of the file in bytes, after its log was copied back.
fn size(path: &Path) -> u64 {
    let conn = Connection::open(path).expect("the store answers");
    conn.busy_timeout(Duration::from_secs(5)).expect("the store answers");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("the store answers");
    std::fs::metadata(path).expect("the store answers").len()
}

#[tokio::test]
async fn file_shrinks_after_a_burst() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = open(&folder, Synchronous::Off, clock.clone()).await;
    let path = folder.file();
    let before = size(&path);
    for _ in 0..10 {
        insert(&store, (0..100).map(|_| large(20_000)).collect()).await;
    }
    fail_all(&store).await;
    let kept = job("alpha", HOUR);
    insert(&store, vec![kept.clone()]).await;
    let largest = size(&path);
    assert!(largest > before + (19 << 20), "{largest}");
    clock.advance(HOUR * 30);
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while size(&path) > before + (3 << 20) / 2 {
        let began = Instant::now();
        store.prune(100).await.expect("the store answers");
        slowest = slowest.max(began.elapsed());
        calls += 1;
        assert!(calls < 60, "{} of {largest} bytes after {calls} calls", size(&path));
    }
    println!("{largest} bytes, then {} after {calls} calls; the slowest took {slowest:?}", size(&path));
    assert!(calls > 10, "a step returns a limited part");
    assert!(
        matches!(store.get(kept.id).await.expect("the store answers"), JobLookup::Found(_)),
        "other jobs stay readable"
    );
    assert_eq!(store.claim(&claim(9)).await.expect("the store answers").attempts[0].payload, kept.payload);
    let whole: String = Connection::open(&path)
        .expect("the store answers")
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("the store answers");
    assert_eq!(whole, "ok");
}

/// With overlapping readers, SQLite never finds a moment to restart the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_cut_beside_continuous_readers() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Off, SystemClock::default()).await;
    let log = folder.file().with_extension("db-wal");
    let length = || std::fs::metadata(&log).expect("the log exists").len();
    let stop = Arc::new(AtomicBool::new(false));
    let readers = {
        let (path, stop) = (folder.file(), Arc::clone(&stop));
        std::thread::spawn(move || read_continuously(&path, &stop))
    };
    let (mut longest, mut over) = (0, None);
    let began = Instant::now();
    // The log grows past its limit and is cut.
    while longest <= LIMIT || length() > LIMIT {
        longest = longest.max(length());
        over = over.or((longest > LIMIT).then(Instant::now));
        insert(&store, (0..20).map(|_| large(400_000)).collect()).await;
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes of {longest}", length());
    }
    // Measured in time: a fast disk writes many bytes between two tries.
    let over = over.expect("the log grew past its limit").elapsed();
    assert!(over < 3 * (CUTS + CUT), "{longest} bytes, {over:?} after its limit");
    println!("the log had {longest} bytes, and {} after {:?}", length(), began.elapsed());
    stop.store(true, Ordering::Relaxed);
    readers.join().expect("the reader ends");
}

/// The limit in bytes that `docs/sqlite.md` names.
const LIMIT: u64 = 64 << 20;
/// The pause between two tries to cut the log, and the duration of a try.
const CUTS: Duration = Duration::from_secs(2);
const CUT: Duration = Duration::from_millis(500);

fn read_continuously(path: &Path, stop: &AtomicBool) {
    let conns = [Connection::open(path).expect("the file opens"), Connection::open(path).expect("the file opens")];
    let begin = |at: usize| conns[at].execute_batch("BEGIN; SELECT count(*) FROM types;").expect("a snapshot");
    begin(0);
    for at in (0..2).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        begin(1 - at);
        std::thread::sleep(Duration::from_millis(3));
        conns[at].execute_batch("ROLLBACK").expect("the snapshot ends");
    }
}

/// Follows `docs/sqlite.md` to copy the file while jobs are accepted. The copies are stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_of_a_busy_file_is_a_store() {
    let folder = Folder::new();
    let store = Arc::new(open(&folder, Synchronous::Normal, SystemClock::default()).await);
    let before: Vec<JobId> = {
        let jobs: Vec<NewJob> = (0..200).map(|_| job("alpha", HOUR)).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        insert(&store, jobs).await;
        ids
    };
    let taken = store.claim(&claim(1)).await.expect("the store answers").attempts.remove(0);
    let busy = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                insert(&store, vec![job("alpha", HOUR)]).await;
            }
        })
    };
    let copies = [folder.file().with_extension("vacuumed"), folder.file().with_extension("backup")];
    let (from, to) = (folder.file(), copies.clone());
    let copy = move || {
        let conn = Connection::open(from).expect("the store answers");
        conn.execute("VACUUM INTO ?1", [to[0].to_str().expect("the store answers")]).expect("the store answers");
        conn.backup(rusqlite::MAIN_DB, &to[1], None::<fn(rusqlite::backup::Progress)>).expect("the store answers");
    };
    tokio::task::spawn_blocking(copy).await.expect("the store answers");
    busy.abort();
    for copy in copies {
        let restored = SqliteStore::open(&copy).await.expect("the store answers");
        assert!(
            restored.versions(&before).await.expect("the store answers").iter().all(Option::is_some),
            "the copy has all jobs"
        );
        restored.settle(&[end(&taken, completed("1"))]).await.expect("the store answers");
        let counted = restored.stats(&StatsQuery::default()).await.expect("the store answers").types[0].clone();
        assert_eq!((counted.count(JobStatus::Completed), counted.count(JobStatus::InProgress)), (1, 0));
        let mut left = 0;
        while let some @ 1.. = restored.claim(&claim(64)).await.expect("the store answers").attempts.len() {
            left += some as u64;
        }
        assert_eq!(left, counted.count(JobStatus::Queued), "counts and jobs agree");
        drop(restored);
        let conn = Connection::open(&copy).expect("the store answers");
        let vacuum: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).expect("the store answers");
        assert_eq!(vacuum, 2, "a copy returns space as the file does");
    }
}
