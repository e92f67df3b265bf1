//! Probes and shutdown of the demo, as an orchestrator and a load balancer see them.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time};

/// Interval of the load balancer's probes.
const PROBE: Duration = Duration::from_millis(50);

/// Waits until the demo is ready.
async fn ready(demo: &Demo) {
    let waiting = async {
        while demo.get("/health/ready").await.status() != StatusCode::OK {
            tokio::time::sleep(PROBE).await;
        }
    };
    in_time("readiness", waiting).await;
}

#[tokio::test]
async fn ready_checks_cover_the_dependencies() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    ready(&demo).await;
    let report: Value = demo.get("/health/ready").await.json().await.unwrap();
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["asyncendpoints", "sqlite", "weather", "climate"]);
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
