//! Dropped calls, threads, hints, and the work of one call on the server.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _,
    job::TraceContext,
    limits::LOG_BYTES_PER_JOB,
    store::{Fenced, Hint, JobLookup, Outcome, Report, StatsQuery},
};
use async_endpoints_testkit::{
    jobs::{completed, job, line},
    server::RedisServer,
};
use futures_util::StreamExt as _;

use crate::common::{HOUR, in_order, insert, open, options, prefix, settle, shared, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_leave_whole_jobs() {
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
    // Inserts of dropped calls may still arrive.
    assert!(taken >= queued, "{taken} of {queued}");
    assert_eq!((count(JobStatus::Queued).await, count(JobStatus::InProgress).await), (0, running + taken));
    in_order(&store).await;
}

/// Number of threads of stores in this process.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the list of threads").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("redis-")).count()
}

/// Runs in a process of its own, because other tests have stores too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn threads_and_connections_end_with_the_store() {
    if std::env::var_os("ALONE").is_none() {
        let this = std::env::current_exe().unwrap();
        let test = ["life::threads_and_connections_end_with_the_store", "--exact"];
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
        // A new thread gets its name a moment later.
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
    // A store that cannot be opened leaves nothing either.
    server.kill();
    options().open(server.url()).await.expect_err("the server is killed");
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
async fn hints_continue_after_the_opening_runtime_ends() {
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
    assert!(gone.is_ok(), "the stream ends, so that its listener subscribes again");
    let mut hints = store.hints();
    insert(&store).await.unwrap();
    let heard = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Lagged))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap().is_some());
    insert(&store).await.unwrap();
    take(&store, 9).await;
    let heard = async { hints.by_ref().filter(|hint| std::future::ready(matches!(hint, Hint::Jobs(_)))).next().await };
    assert!(tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap().is_some());
}

#[tokio::test]
async fn hint_stream_ends_with_its_store() {
    let (_server, store) = shared().await;
    let hints = store.hints();
    drop(store);
    let ended = tokio::time::timeout(Duration::from_secs(5), hints.collect::<Vec<_>>()).await;
    assert!(ended.is_ok());
}

/// One report drops at most 2 000 lines. Later reports drop the rest of the attempt.
#[tokio::test]
async fn old_log_lines_are_dropped_in_bounded_steps() {
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
    report(second, 1, "within the limit").await;
    assert_eq!(oldest().await, 1);
    report(second, 1, &"x".repeat(LOG_BYTES_PER_JOB / 10)).await;
    for dropped in [2_000, 4_000, 6_000, 8_000] {
        assert_eq!(oldest().await, dropped + 1);
        report(second, 1, "one more").await;
    }
    let left = store.logs(id, 0, 100).await.unwrap();
    assert_eq!(left.iter().map(|line| line.attempt).collect::<Vec<_>>(), [2; 6]);
    let numbers: Vec<_> = (LINES as u64 + 1..).take(6).collect();
    assert_eq!(left.iter().map(|line| line.line).collect::<Vec<_>>(), numbers);
}

#[tokio::test]
async fn ten_thousand_versions_do_not_block_the_server() {
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

#[tokio::test]
async fn fields_of_a_later_version_are_kept() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = open(&server, async_endpoints_redis::Options::new().prefix(prefix.clone())).await;
    let id = insert(&store).await.unwrap().id;
    let hash = format!("{{{prefix}}}:job:{id}");
    let terms = server.cli(&["HGET", &hash, "w"]) + " later";
    server.cli(&["HSET", &hash, "later", "1", "w", &terms]);
    settle(&store, take(&store, 1).await.remove(0).lease, Outcome::Released).await;
    settle(&store, take(&store, 1).await.remove(0).lease, completed("1")).await;
    assert!(matches!(store.get(id).await.unwrap(), JobLookup::Found(job) if job.status == JobStatus::Completed));
    assert_eq!(server.cli(&["HMGET", &hash, "later", "w"]), format!("1\n{terms}"));
    in_order(&store).await;
}

/// Redis takes twice the memory for a hash with a field of more than 64 bytes.
#[tokio::test]
async fn hash_of_a_traced_job_stays_compact() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = open(&server, async_endpoints_redis::Options::new().prefix(prefix.clone())).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for bytes in [9, 64, 65, 512] {
        let trace = TraceContext { traceparent: traceparent.parse().unwrap(), tracestate: Some("a".repeat(bytes)) };
        let new = job("alpha", HOUR).trace(trace.clone());
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
