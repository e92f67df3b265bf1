//! A store's own life: callers that leave, threads, hints, and how long one call may hold the server up.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    job::TraceContext,
    limits::LOG_BYTES_PER_JOB,
    store::{Fenced, Hint, NewJob, Outcome, Report, StatsQuery},
};
use async_endpoints_testkit::{
    jobs::{completed, job, line},
    server::RedisServer,
};
use futures_util::StreamExt as _;

use crate::common::{HOUR, in_order, insert, open, options, prefix, settle, shared, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_breaks_nothing() {
    let (_server, store) = shared().await;
    for at in 0..60 {
        let patience = Duration::from_micros(100 + 40 * at);
        let waiting: Vec<_> = (0..8).map(|_| insert(&store)).collect();
        drop(tokio::time::timeout(patience, futures_util::future::join_all(waiting)).await);
        drop(tokio::time::timeout(patience / 2, take(&store, 2)).await);
    }
    insert(&store).await.unwrap();
    let count = async |of: JobStatus| {
        let stats = store.stats(&StatsQuery::default()).await.unwrap();
        stats.types[0].count(of)
    };
    let (queued, running) = (count(JobStatus::Queued).await, count(JobStatus::InProgress).await);
    let mut taken = 0;
    while let some @ 1.. = take(&store, 64).await.len() {
        taken += some as u64;
    }
    // Whoever left may have been on the way: what comes late is whole, too.
    assert!(taken >= queued, "{taken} of {queued}");
    assert_eq!((count(JobStatus::Queued).await, count(JobStatus::InProgress).await), (0, running + taken));
    in_order(&store).await;
}

/// Threads of this process whose name says that they are a store's.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("redis-")).count()
}

/// In a process of its own: tests beside it have stores too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn threads_and_connections_end_with_the_last_handle() {
    if std::env::var_os("ALONE").is_none() {
        let this = std::env::current_exe().unwrap();
        let test = ["life::threads_and_connections_end_with_the_last_handle", "--exact"];
        let ran = std::process::Command::new(this).args(test).env("ALONE", "1").output().unwrap();
        let out = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && out.contains("1 passed"), "{out}");
        return;
    }
    let server = RedisServer::start();
    for _ in 0..5 {
        let store = std::sync::Arc::new(open(&server, options()).await);
        let (hints, other) = (store.hints(), std::sync::Arc::clone(&store));
        drop(store);
        insert(&other).await.unwrap();
        // A thread that was started takes its name a moment later.
        for _ in 0..500 {
            if threads() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(threads(), 1);
        drop(other);
        drop(hints);
    }
    // One that could not be opened leaves nothing either.
    server.kill();
    options().open(server.url()).await.expect_err("nobody is there");
    server.restart();
    for _ in 0..500 {
        let clients = server.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.contains("cmd=client")).count();
        if (threads(), clients) == (0, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} threads are left, and {}", threads(), server.cli(&["CLIENT", "LIST"]));
}

#[tokio::test]
async fn hints_are_heard_again_when_the_runtime_that_opened_the_store_is_gone() {
    let server = RedisServer::shared();
    let opened = std::thread::spawn({
        let url = server.url();
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let store = runtime.block_on(options().open(url)).unwrap();
            let hints = store.hints();
            (store, hints)
        }
    });
    let (store, before) = opened.join().unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(5), before.collect::<Vec<_>>()).await;
    assert!(gone.is_ok(), "it ends, so that whoever listens asks again");
    let mut hints = store.hints();
    insert(&store).await.unwrap();
    let told = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Lagged))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), told).await.unwrap().is_some());
    insert(&store).await.unwrap();
    take(&store, 9).await;
    let told = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Jobs(_)))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), told).await.unwrap().is_some());
}

#[tokio::test]
async fn streams_of_hints_end_with_their_store() {
    let (_server, store) = shared().await;
    let hints = store.hints();
    drop(store);
    let ended = tokio::time::timeout(Duration::from_secs(5), hints.collect::<Vec<_>>()).await;
    assert!(ended.is_ok());
}

/// However many they are, one call takes 2 000 of them away; those that follow go on until the whole attempt is gone.
#[tokio::test]
async fn an_attempt_of_very_many_lines_goes_in_bounded_calls() {
    const LINES: usize = 9_000;
    let (_server, store) = shared().await;
    let id = insert(&store).await.unwrap().id;
    let report = async |lease, lines: usize, text: &str| {
        let report = Report { lease, progress: None, logs: vec![line(text); lines] };
        assert_eq!(store.report(&[report]).await.unwrap(), [Fenced::Applied]);
    };
    let first = take(&store, 1).await.remove(0).lease;
    for _ in 0..LINES / 1_000 {
        report(first, 1_000, &"x".repeat(LOG_BYTES_PER_JOB / LINES - 10 - line("").bytes() as usize)).await;
    }
    settle(&store, first, Outcome::Released).await;
    let second = take(&store, 1).await.remove(0).lease;
    let oldest = async || store.logs(id, 0, 1).await.unwrap().remove(0).line;
    report(second, 1, "does not fit any more").await;
    assert_eq!(oldest().await, 1, "it fits");
    report(second, 1, &"x".repeat(LOG_BYTES_PER_JOB / 10)).await;
    for gone in [2_000, 4_000, 6_000, 8_000] {
        assert_eq!(oldest().await, gone + 1);
        report(second, 1, "one more").await;
    }
    let left = store.logs(id, 0, 100).await.unwrap();
    assert_eq!(left.iter().map(|line| line.attempt).collect::<Vec<_>>(), [2; 6]);
    let numbers: Vec<_> = (LINES as u64 + 1..).take(6).collect();
    assert_eq!(left.iter().map(|line| line.line).collect::<Vec<_>>(), numbers);
}

#[tokio::test]
async fn ten_thousand_that_wait_hold_nobody_up() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap().id;
    let mut ids: Vec<JobId> = (0..9_999).map(|_| JobId::random()).collect();
    ids.push(kept);
    server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "100000"]);
    let versions = store.versions(&ids).await.unwrap();
    assert_eq!((versions.len(), versions.iter().flatten().count(), versions[9_999]), (10_000, 1, Some(1)));
    assert_eq!(server.cli(&["SLOWLOG", "LEN"]), "0");
}

/// It takes twice as much with a field of more than 64 bytes.
#[tokio::test]
async fn the_hash_of_a_traced_job_stays_compact() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = open(&server, async_endpoints_redis::Options::new().prefix(prefix.clone())).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for bytes in [9, 64, 65, 512] {
        let trace = TraceContext { traceparent: traceparent.to_owned(), tracestate: Some("a".repeat(bytes)) };
        let new = NewJob { trace: Some(trace.clone()), ..job("alpha", HOUR) };
        store.insert(new.clone()).await.unwrap();
        let encoding = || server.cli(&["OBJECT", "ENCODING", &format!("{{{prefix}}}:job:{}", new.id)]);
        let expected = if bytes <= 64 { "listpack" } else { "hashtable" };
        assert_eq!(encoding(), expected, "{bytes}");
        let taken = take(&store, 1).await.remove(0);
        assert_eq!(taken.trace, Some(trace));
        settle(&store, taken.lease, completed("1")).await;
        assert_eq!(encoding(), expected, "{bytes}");
    }
}
