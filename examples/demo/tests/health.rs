//! Probes and shutdown of the demo, as an orchestrator and a load balancer see them.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    fs, io,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{SqliteStore, core::JobStore};
use async_endpoints_testkit::jobs::job;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time};
use tokio::{process::Command, task::JoinSet};

/// Interval of the load balancer's probes.
const PROBE: Duration = Duration::from_millis(50);

/// Limit of a probe's time.
const SLOW_PROBE: Duration = Duration::from_millis(100);

/// Waits until the demo is ready.
async fn ready(demo: &Demo) {
    readiness(demo, StatusCode::OK).await;
}

/// Waits until the demo reports this readiness, and returns the report.
async fn readiness(demo: &Demo, status: StatusCode) -> Value {
    let waiting = async {
        loop {
            let answer = demo.get("/health/ready").await;
            if answer.status() == status {
                return answer.json().await.expect("a report");
            }
            tokio::time::sleep(PROBE).await;
        }
    };
    in_time("readiness", waiting).await
}

/// The names of a report's checks.
fn names(report: &Value) -> Vec<&str> {
    report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect()
}

/// The names of an object's members.
fn members(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn health_page_shows_the_demos_checks() {
    let page = include_str!("../../../docs/health.md");
    let (_, shown) = page.split_once("## Try it\n").unwrap();
    let (shown, _) = shown.split_once("\n## ").unwrap();
    let live: Value = shown.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
    let all: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("Healthy ")?.split(' ').next()).collect();
    let (_, first) = shown.split_once("'.checks[0]'\n").unwrap();
    let first: Value = serde_json::from_str(first.split_once("```").unwrap().0).unwrap();
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    ready(&demo).await;
    assert_eq!(names(&live), names(&demo.get("/health/live").await.json().await.unwrap()));
    let report: Value = demo.get("/health").await.json().await.unwrap();
    assert_eq!(all, names(&report));
    assert_eq!(members(&first), members(&report["checks"][0]));
    assert_eq!(members(&first["data"]), members(&report["checks"][0]["data"]));
    demo.stop().await.unwrap();
}

#[tokio::test]
async fn ready_checks_cover_the_dependencies() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    ready(&demo).await;
    let report: Value = demo.get("/health/ready").await.json().await.unwrap();
    assert_eq!(names(&report), ["asyncendpoints", "sqlite", "weather", "climate"]);
    assert!(report["checks"][1]["data"]["disk_free_bytes"].as_u64().is_some_and(|free| free > 0), "{report}");
    assert!(report["checks"][1]["data"]["wal_bytes"].is_u64(), "{report}");
    demo.stop().await.unwrap();
}

#[tokio::test]
async fn idle_process_exits_within_a_second() {
    let folder = Folder::new();
    let mut demo = Demo::start(&folder, &[]).await;
    ready(&demo).await;
    let began = Instant::now();
    demo.terminate().await.unwrap();
    assert!(demo.exited().await.unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let log = demo.log();
    assert!(log.contains("the process drains") && log.contains("a second signal stops it at once"), "{log}");
}

#[tokio::test]
async fn load_balancer_loses_no_request_at_shutdown() {
    let folder = Folder::new();
    let mut demo = Demo::start(&folder, &[("AE_SHUTDOWN_DELAY_SECONDS", "0.5")]).await;
    ready(&demo).await;
    let (mut accepted, mut stopping) = (Vec::new(), false);
    let mut probed = Instant::now();
    loop {
        if probed.elapsed() >= PROBE {
            probed = Instant::now();
            if demo.get("/health/ready").await.status() != StatusCode::OK {
                break;
            }
        }
        // `submit` fails unless the answer is 202.
        accepted.push(demo.submit("/api/sleep", &json!({ "seconds": 0 })).await);
        if accepted.len() == 20 && !stopping {
            stopping = true;
            demo.terminate().await.unwrap();
        }
    }
    assert!(stopping && accepted.len() >= 20);
    assert!(demo.exited().await.unwrap().success());
    let next = Demo::start(&folder, &[]).await;
    for job in &accepted {
        assert_eq!(next.get(job).await.status(), StatusCode::OK, "{job}");
    }
    next.stop().await.unwrap();
}

/// Starts a demo whose folder is a file system of 4 MiB. Returns the folder as this process sees it too.
async fn on_small_disk(folder: &Folder) -> (Demo, PathBuf) {
    // The mount is visible in the namespace of the demo alone. It ends with the demo.
    let script = "mount -t tmpfs -o size=4m tmpfs . && cd \"$(pwd)\" && exec \"$0\"";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_async-endpoints-demo"),
    ]);
    command.current_dir(folder.join("")).env("AE_BIND", "127.0.0.1:0").stdin(Stdio::null()).kill_on_drop(true);
    let demo = Demo::spawn(folder, command).await;
    let disk = PathBuf::from(format!("/proc/{}/cwd", demo.pid()));
    (demo, disk)
}

#[tokio::test]
#[ignore = "needs the right to mount a file system; run it with --ignored"]
async fn full_disk_ends_readiness_until_there_is_space() {
    let folder = Folder::new();
    let (demo, disk) = on_small_disk(&folder).await;
    ready(&demo).await;
    let filler = disk.join("filler");
    let full = fs::write(&filler, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let report = readiness(&demo, StatusCode::SERVICE_UNAVAILABLE).await;
    let store = &report["checks"][0];
    assert_eq!((&store["name"], &store["status"]), (&json!("asyncendpoints"), &json!("Unhealthy")));
    assert!(store["description"].as_str().unwrap().contains("the disk is full"), "{store}");
    assert_eq!(demo.get("/health/live").await.status(), StatusCode::OK);
    fs::remove_file(filler).unwrap();
    ready(&demo).await;
    demo.submit("/api/sleep", &json!({ "seconds": 0 })).await;
    demo.stop().await.unwrap();
}

/// Stores queued jobs in the file that a demo in the folder opens.
async fn store_jobs(folder: &Folder, count: usize) {
    let store = Arc::new(SqliteStore::open(folder.join("async-endpoints.db")).await.unwrap());
    let mut inserts = JoinSet::new();
    for _ in 0..count {
        let store = store.clone();
        inserts.spawn(async move { store.insert(job("Sleep", Duration::from_secs(3600))).await.unwrap() });
    }
    inserts.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_fast_while_clients_read_the_job_list() {
    let folder = Folder::new();
    store_jobs(&folder, 10_000).await;
    // Without a worker, so that the jobs stay.
    let demo = Demo::start(&folder, &[("AE_ROLE", "api")]).await;
    ready(&demo).await;
    let mut readers = JoinSet::<()>::new();
    for _ in 0..8 {
        let request = demo.getting("/jobs?limit=100");
        readers.spawn(async move {
            loop {
                let list = request.try_clone().unwrap().send().await.unwrap();
                assert_eq!(list.status(), StatusCode::OK);
                list.bytes().await.unwrap();
            }
        });
    }
    let mut times = Vec::new();
    for _ in 0..400 {
        for path in ["/health", "/health/ready", "/health/live"] {
            let began = Instant::now();
            assert_eq!(demo.get(path).await.status(), StatusCode::OK, "{path}");
            times.push(began.elapsed());
        }
    }
    assert!(readers.try_join_next().is_none(), "the clients read all the time");
    times.sort();
    let [p50, p90, p99] = [50, 90, 99].map(|percent| times[times.len() * percent / 100]);
    println!("p50 {p50:?}, p90 {p90:?}, p99 {p99:?}");
    // Not p99: other tests take the cores for longer than the limit.
    assert!(p90 < SLOW_PROBE, "p50 {p50:?}, p90 {p90:?}, p99 {p99:?}");
}
