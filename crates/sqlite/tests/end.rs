//! The end of a store: dropped, killed, with callers that wait or have left.

mod common;

use std::time::Duration;

use async_endpoints_core::{
    JobStatus, JobStore as _, SystemClock,
    store::{NewJob, StatsQuery},
};
use async_endpoints_sqlite::{SqliteStore, Synchronous};
use async_endpoints_testkit::jobs::job;
use common::{Folder, HOUR, claim, durable, in_a_process, insert, open};
use rusqlite::Connection;

#[tokio::test]
async fn drop_does_not_wait_for_the_lock() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(50), store.insert(job("alpha", HOUR))).await;
    assert!(waits.is_err(), "the insert waits for the lock");
    let began = std::time::Instant::now();
    drop(store);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// The process is killed while it inserts.
#[cfg(unix)]
#[tokio::test]
async fn answered_call_survives_a_killed_process() {
    use std::io::{BufRead as _, BufReader};
    if let Some(path) = std::env::var_os("INSERT_INTO") {
        let store = std::sync::Arc::new(SqliteStore::open(path).await.unwrap());
        loop {
            let jobs: Vec<NewJob> = (0..8).map(|_| job("alpha", HOUR)).collect();
            futures_util::future::join_all(jobs.iter().map(|job| insert(&store, job))).await;
            jobs.iter().for_each(|job| println!("accepted {}", job.id));
        }
    }
    let folder = Folder::new();
    let this = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(this)
        .args(["answered_call_survives_a_killed_process", "--exact", "--nocapture"])
        .env("INSERT_INTO", folder.file())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut accepted: Vec<String> = lines.by_ref().take(400).collect::<Result<_, _>>().unwrap();
    child.kill().unwrap();
    accepted.extend(lines.map_while(Result::ok));
    child.wait().unwrap();
    let ids: Vec<async_endpoints_core::JobId> =
        accepted.iter().filter_map(|line| line.split_once("accepted ")?.1.get(..36)?.parse().ok()).collect();
    assert!(ids.len() > 300, "{}", ids.len());
    let store = durable(&folder).await;
    assert!(store.versions(&ids).await.unwrap().iter().all(Option::is_some), "nothing is lost");
    let counted = store.stats(&StatsQuery::default()).await.unwrap().types[0].count(JobStatus::Queued);
    let mut taken = 0;
    while let some @ 1.. = store.claim(&claim(64)).await.unwrap().attempts.len() {
        taken += some as u64;
    }
    assert_eq!(taken, counted, "counts and jobs agree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canceled_call_keeps_counts_consistent() {
    let folder = Folder::new();
    let store = durable(&folder).await;
    for _ in 0..50 {
        let waiting: Vec<_> = (0..8).map(|_| store.insert(job("alpha", HOUR))).collect();
        drop(tokio::time::timeout(Duration::from_micros(300), futures_util::future::join_all(waiting)).await);
    }
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    let queued = stats.types.first().map_or(0, |of| of.count(JobStatus::Queued));
    let mut taken = 0;
    loop {
        match store.claim(&claim(64)).await.unwrap().attempts.len() {
            0 => break,
            some => taken += some as u64,
        }
    }
    assert!(taken >= queued, "{taken} of {queued}");
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!(stats.types[0].count(JobStatus::InProgress), taken, "counts and jobs agree");
}

/// Threads of stores in this process.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list of threads").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("sqlite-")).count()
}

/// Runs in a process of its own, as other tests have stores too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn threads_end_when_the_store_is_dropped() {
    if std::env::var_os("ALONE").is_none() {
        in_a_process(&std::env::current_exe().unwrap(), "threads_end_when_the_store_is_dropped", |command| {
            command.env("ALONE", "1");
        });
        return;
    }
    let folder = Folder::new();
    for _ in 0..5 {
        let store = durable(&folder).await;
        let hints = store.hints();
        insert(&store, &job("alpha", HOUR)).await;
        assert!(threads() >= 3, "{}", threads());
        drop(store);
        drop(hints);
    }
    for _ in 0..500 {
        if threads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} threads are left", threads());
}

#[tokio::test]
async fn last_process_removes_the_log() {
    let folder = Folder::new();
    let (one, other) = (durable(&folder).await, durable(&folder).await);
    let kept = job("alpha", HOUR);
    insert(&one, &kept).await;
    let (log, index) = (folder.file().with_extension("db-wal"), folder.file().with_extension("db-shm"));
    drop(one);
    assert!(log.exists() && index.exists(), "the other store has it open");
    drop(other);
    assert!(!log.exists() && !index.exists(), "no store has it open");
    assert_eq!(durable(&folder).await.versions(&[kept.id]).await.unwrap(), [Some(1)]);
}

#[tokio::test]
async fn hints_end_with_the_store() {
    use futures_util::StreamExt as _;
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Off, SystemClock::default()).await;
    let mut hints = store.hints();
    drop(store);
    let ended = tokio::time::timeout(Duration::from_secs(10), hints.next()).await;
    assert_eq!(ended, Ok(None));
}
