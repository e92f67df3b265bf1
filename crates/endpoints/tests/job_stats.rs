//! `/metrics/jobs` after jobs of known durations.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{future::ready, sync::Arc, time::Duration};

use async_endpoints::{JobContext, JobError, JobType, MemoryStore};
use async_endpoints_testkit::{Checked, ManualClock};
use serde_json::{Value, json};
use support::Service;

const TIMED: JobType<(), ()> = JobType::new("Timed");

/// Twenty jobs, each queued for 40 ms and run for 1 s by the store's clock.
#[tokio::test]
async fn shown_percentiles_are_within_5_percent() {
    let clock = ManualClock::new();
    let time = clock.clone();
    let run_for_1_s = move |_: JobContext<()>| {
        time.advance(Duration::from_secs(1));
        ready(Ok::<(), JobError>(()))
    };
    let store = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
    let endpoints = support::builder(&store).handler(TIMED, run_for_1_s).build().unwrap();
    for _ in 0..20 {
        endpoints.submit(TIMED, ()).await.unwrap();
        clock.advance(Duration::from_millis(40));
        endpoints.run_until_idle().await.unwrap();
    }
    let routes = endpoints.monitoring_routes();
    let service = Service::serve_app(store, endpoints, routes).await;
    let document: Value = service.client.get(service.url("/metrics/jobs")).send().await.unwrap().json().await.unwrap();
    for (times, truth) in [("processingTime", 1_000.0), ("queueTime", 40.0)] {
        for percentile in ["p50", "p95", "p99"] {
            let shown = document[times][percentile].as_f64().unwrap();
            assert!((shown / truth - 1.0).abs() <= 0.05, "{times} {percentile}: {shown} ms");
        }
    }
    assert_eq!((&document["completedJobs"], &document["avgProcessingTime"]), (&json!(20), &json!(1_000.0)));
    service.stop().await;
}
