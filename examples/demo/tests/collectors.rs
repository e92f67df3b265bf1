//! Collectors that are missing, silent or overloaded: jobs end as usual, memory is bounded, losses are counted, and the
//! process exits in time.

mod support;

use std::time::{Duration, Instant};

use async_endpoints_testkit::server::free_port;
use axum::{Router, http::StatusCode, http::header::RETRY_AFTER};
use serde_json::json;
use support::{Demo, Folder, metric};
use tokio::net::TcpListener;

const JOBS: usize = 400;
/// Maximum number of spans that wait for their export, and of log records.
const QUEUE: &str = "200";
/// Jobs and queues need less than this.
const MAX_GROWTH: u64 = 48 << 20;

/// Accepts connections and never answers.
async fn hanging() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = url(&listener);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    url
}

/// Asks to come again in an hour.
async fn overloaded() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = url(&listener);
    let answer = async || (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "3600")]);
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    url
}

fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// Resident memory in bytes.
fn memory(demo: &Demo) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", demo.pid())).expect("a running process");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).expect("a number")
}

async fn run_jobs(demo: &Demo, count: usize) {
    let mut jobs = Vec::new();
    for _ in 0..count {
        jobs.push(demo.submit("/api/unreliable", &json!({ "failureRate": 0 })).await);
    }
    for job in &jobs {
        assert_eq!(demo.ended(job).await["status"], "Completed");
    }
}

async fn check_jobs_and_exit(endpoint: &str, protocol: &str) {
    let folder = Folder::new();
    let vars = [
        ("AE_STORE", "memory:"),
        ("AE_LOG_FORMAT", "json"),
        ("AE_SHUTDOWN_SECONDS", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", QUEUE),
        ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", QUEUE),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", QUEUE),
    ];
    let demo = Demo::start(&folder, &vars).await;
    run_jobs(&demo, JOBS / 4).await;
    let before = memory(&demo);
    run_jobs(&demo, JOBS).await;
    let grown = memory(&demo).saturating_sub(before);
    assert!(grown < MAX_GROWTH, "{endpoint} {protocol}: {} KiB more memory", grown >> 10);

    // A collector that answers at once empties the queues again. What it refused is lost as well.
    let page = demo.get("/metrics").await.text().await.expect("text");
    for signal in ["span", "log"] {
        let full = metric(&page, &format!("otel_sdk_processor_{signal}_processed_total"), "queue_full");
        let failed = ["timeout", "_OTHER"]
            .map(|why| metric(&page, &format!("otel_sdk_exporter_{signal}_exported_total"), why).unwrap_or_default());
        let lost = full.unwrap_or_default() + failed[0] + failed[1];
        assert!(lost > JOBS as f64, "{endpoint} {protocol}: {lost} lost {signal} items are counted");
    }

    let (began, log) = (Instant::now(), demo.log_path());
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{endpoint} {protocol}: {:?}", began.elapsed());
    let log = std::fs::read_to_string(log).expect("a log");
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect();
    // Of each signal: the first failure, and what was not exported at the end.
    assert!((3..=8).contains(&complaints.len()), "{endpoint} {protocol}: {complaints:#?}");
}

#[tokio::test]
async fn missing_http_collector_delays_nothing() {
    check_jobs_and_exit(&format!("http://127.0.0.1:{}", free_port()), "http/protobuf").await;
}

#[tokio::test]
async fn missing_grpc_collector_delays_nothing() {
    check_jobs_and_exit(&format!("http://127.0.0.1:{}", free_port()), "grpc").await;
}

#[tokio::test]
async fn hanging_http_collector_delays_nothing() {
    check_jobs_and_exit(&hanging().await, "http/protobuf").await;
}

#[tokio::test]
async fn hanging_grpc_collector_delays_nothing() {
    check_jobs_and_exit(&hanging().await, "grpc").await;
}

#[tokio::test]
async fn retry_after_an_hour_delays_nothing() {
    check_jobs_and_exit(&overloaded().await, "http/protobuf").await;
}
