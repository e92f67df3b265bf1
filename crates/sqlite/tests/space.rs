//! How much room a file takes: after a burst, beside readers without end, and as a copy made while jobs run.

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
    store::{JobLookup, NewJob, Settlement, StatsQuery},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job},
};
use common::{Folder, HOUR, claim, open};
use futures_util::future::join_all;
use rusqlite::Connection;

fn large(bytes: usize) -> NewJob {
    NewJob { payload: vec![7; bytes].into(), id_chosen: false, ..job("alpha", HOUR) }
}

async fn insert(store: &SqliteStore, jobs: Vec<NewJob>) {
    let answers = join_all(jobs.into_iter().map(|job| store.insert(job))).await;
    answers.into_iter().for_each(|answer| drop(answer.expect("it is accepted")));
}

/// Claims all jobs and ends them, leaving payloads where they are.
async fn fail_all(store: &SqliteStore) {
    loop {
        let attempts = store.claim(&claim(64)).await.expect("it answers").attempts;
        if attempts.is_empty() {
            return;
        }
        let failed = async_endpoints_core::store::Outcome::Failed { error: error("F") };
        let end = |lease| Settlement::new(lease, failed.clone(), error("X"));
        let ends: Vec<_> = attempts.iter().map(|attempt| end(attempt.lease)).collect();
        store.settle(&ends).await.expect("it answers");
    }
}

/// The file's bytes once its log was copied back.
fn size(path: &Path) -> u64 {
    let conn = Connection::open(path).expect("it answers");
    conn.busy_timeout(Duration::from_secs(5)).expect("it answers");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("it answers");
    std::fs::metadata(path).expect("it answers").len()
}

#[tokio::test]
async fn a_file_returns_to_its_size_after_a_burst() {
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
    let most = size(&path);
    assert!(most > before + (19 << 20), "{most}");
    clock.advance(HOUR * 30);
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while size(&path) > before + (3 << 20) / 2 {
        let began = Instant::now();
        store.prune(100).await.expect("it answers");
        slowest = slowest.max(began.elapsed());
        calls += 1;
        assert!(calls < 60, "{} of {most} bytes after {calls} calls", size(&path));
    }
    println!("{most} bytes, then {} after {calls} calls; the slowest took {slowest:?}", size(&path));
    assert!(calls > 10, "a step gives back a bounded part");
    assert!(matches!(store.get(kept.id).await.expect("it answers"), JobLookup::Found(_)), "the rest is where it was");
    assert_eq!(store.claim(&claim(9)).await.expect("it answers").attempts[0].payload, kept.payload);
    let whole: String = Connection::open(&path)
        .expect("it answers")
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it answers");
    assert_eq!(whole, "ok");
}

/// Readers of which one has always begun before the last one ended never leave SQLite a moment to begin the log anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_beside_readers_without_end() {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Off, SystemClock::default()).await;
    let log = folder.file().with_extension("db-wal");
    let length = || std::fs::metadata(&log).expect("it is there").len();
    let stop = Arc::new(AtomicBool::new(false));
    let readers = {
        let (path, stop) = (folder.file(), Arc::clone(&stop));
        std::thread::spawn(move || read_without_end(&path, &stop))
    };
    let (mut longest, mut over) = (0, None);
    let began = Instant::now();
    // It grows past its limit, is cut, and grows again.
    while longest <= LIMIT || length() > LIMIT {
        longest = longest.max(length());
        over = over.or((longest > LIMIT).then(Instant::now));
        insert(&store, (0..20).map(|_| large(400_000)).collect()).await;
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes of {longest}", length());
    }
    // Not in bytes, of which a fast disk takes many between two tries to cut it.
    let over = over.expect("it grew past its limit").elapsed();
    assert!(over < 3 * (CUTS + CUT), "{longest} bytes, {over:?} after it was too long");
    println!("the log had {longest} bytes, and {} after {:?}", length(), began.elapsed());
    stop.store(true, Ordering::Relaxed);
    readers.join().expect("they read");
}

/// Bytes that `docs/sqlite.md` names.
const LIMIT: u64 = 64 << 20;
/// How far apart tries to cut it are, and how long one takes at most.
const CUTS: Duration = Duration::from_secs(2);
const CUT: Duration = Duration::from_millis(500);

fn read_without_end(path: &Path, stop: &AtomicBool) {
    let conns = [Connection::open(path).expect("it opens"), Connection::open(path).expect("it opens")];
    let begin = |at: usize| conns[at].execute_batch("BEGIN; SELECT count(*) FROM types;").expect("it reads");
    begin(0);
    for at in (0..2).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        begin(1 - at);
        std::thread::sleep(Duration::from_millis(3));
        conns[at].execute_batch("ROLLBACK").expect("it ends");
    }
}

/// What `docs/sqlite.md` says about copies, done: made while jobs are accepted, opened as a store, worked off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_jobs_run_is_a_store() {
    let folder = Folder::new();
    let store = Arc::new(open(&folder, Synchronous::Normal, SystemClock::default()).await);
    let before: Vec<JobId> = {
        let jobs: Vec<NewJob> = (0..200).map(|_| job("alpha", HOUR)).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        insert(&store, jobs).await;
        ids
    };
    let taken = store.claim(&claim(1)).await.expect("it answers").attempts.remove(0);
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
        let conn = Connection::open(from).expect("it answers");
        conn.execute("VACUUM INTO ?1", [to[0].to_str().expect("it answers")]).expect("it answers");
        conn.backup(rusqlite::MAIN_DB, &to[1], None::<fn(rusqlite::backup::Progress)>).expect("it answers");
    };
    tokio::task::spawn_blocking(copy).await.expect("it answers");
    busy.abort();
    for copy in copies {
        let restored = SqliteStore::open(&copy).await.expect("it answers");
        assert!(restored.versions(&before).await.expect("it answers").iter().all(Option::is_some), "all are in it");
        let end = Settlement::new(taken.lease, completed("1"), error("X"));
        restored.settle(&[end]).await.expect("it answers");
        let counted = restored.stats(&StatsQuery::default()).await.expect("it answers").types[0].clone();
        assert_eq!((counted.count(JobStatus::Completed), counted.count(JobStatus::InProgress)), (1, 0));
        let mut left = 0;
        while let some @ 1.. = restored.claim(&claim(64)).await.expect("it answers").attempts.len() {
            left += some as u64;
        }
        assert_eq!(left, counted.count(JobStatus::Queued), "counts are what the jobs say");
        drop(restored);
        let conn = Connection::open(&copy).expect("it answers");
        let vacuum: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).expect("it answers");
        assert_eq!(vacuum, 2, "a copy gives space back as the file does");
    }
}
