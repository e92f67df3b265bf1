//! The routes: who may read them, what they cost the store, and what they show while it is away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{Access, AsyncEndpoints, BuildError};
use async_endpoints_testkit::FlakyStore;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{TEXT, WORK, samples, scrape, serve_monitoring, service, telemetry, work};
use crate::support::{self, PATIENCE, Service, ended, store};

#[tokio::test]
async fn many_scrapes_query_the_store_once_in_5_s() {
    let telemetry = telemetry();
    let began = Instant::now();
    let service = service(&telemetry).await;
    let scrapes = (0..100).map(|_| async {
        scrape(&service.url(""), TEXT).await;
        assert_eq!(service.client.get(service.url("/metrics/jobs")).send().await.unwrap().status(), StatusCode::OK);
    });
    join_all(scrapes).await;
    let samples = samples(&scrape(&service.url(""), TEXT).await);
    let limit = began.elapsed().as_secs() / 5 + 1;
    let calls = samples[r#"async_store_operation_time_seconds_count{operation="stats",outcome="ok",store="memory"}"#];
    assert!((1.0..=limit as f64).contains(&calls), "{calls} in {:?}", began.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn second_endpoints_on_one_telemetry_are_rejected() {
    let telemetry = telemetry();
    let build = || support::builder(&store()).telemetry(&telemetry).handler(WORK, work).build();
    let first = build().unwrap();
    let error = build().expect_err("a second attachment");
    assert!(matches!(error, BuildError::TelemetryTaken), "{error}");
    drop(first);
    build().expect("the first attachment is gone");
}

#[tokio::test]
async fn stats_agree_between_route_and_processes() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    for kind in [0, 0, 0, 1] {
        let id = service.submit("/work", json!(kind)).await;
        ended(&service.endpoints, id).await;
    }
    service.endpoints.submit(WORK, 0).delay(Duration::from_secs(60)).await.unwrap();
    let read =
        async || service.client.get(service.url("/metrics/jobs")).send().await.unwrap().json::<Value>().await.unwrap();
    // The health checks read the same cache, so the first document may be 5 s old.
    support::until(async || read().await["scheduledJobs"] == 1).await;
    let document = read().await;
    for (name, value) in [("completedJobs", 3), ("failedJobs", 1), ("scheduledJobs", 1), ("queuedJobs", 0)] {
        assert_eq!(document[name], value, "{name}");
        assert_eq!(document["jobTypes"]["Work"][name], value, "{name}");
        assert_eq!(document["jobTypes"]["Idle"][name], 0, "{name}");
    }
    assert_eq!((&document["errorRate"], &document["oldestQueuedAge"]), (&json!(25.0), &json!(null)));
    assert!(document["processingTime"]["p95"].as_f64().is_some_and(|millis| millis > 0.0));
    let stats = service.endpoints.stats(Duration::from_secs(3600)).await.unwrap();
    let other = AsyncEndpoints::builder(service.endpoints.store().clone()).build().unwrap();
    let other = other.stats(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((&stats.total, &stats.job_types["Work"]), (&other.total, &other.job_types["Work"]));
    assert_eq!(stats.total.error_rate, 25.0);
    service.stop().await;
}

#[tokio::test]
async fn metrics_route_needs_telemetry() {
    let service = Service::start(|builder| builder.handler(WORK, work)).await;
    let url = serve_monitoring(&service.endpoints).await;
    assert_eq!(reqwest::get(format!("{url}/metrics")).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(reqwest::get(format!("{url}/metrics/jobs")).await.unwrap().status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn unavailable_store_omits_its_gauges() {
    let flaky = Arc::new(FlakyStore::new(store()));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .access(Access::loopback())
        .telemetry(&telemetry())
        .handler(WORK, work)
        .build()
        .unwrap();
    flaky.outage(true);
    let url = serve_monitoring(&endpoints).await;
    let text = scrape(&url, TEXT).await;
    assert!(!text.contains("async_job_jobs{") && text.contains("async_job_queued_total{job_type=\"Work\"} 0"));
    assert_eq!(reqwest::get(format!("{url}/metrics/jobs")).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn hanging_store_delays_a_scrape_by_a_second() {
    let hanging = FlakyStore::new(store()).delays(Duration::from_secs(120));
    let endpoints = AsyncEndpoints::builder(hanging)
        .access(Access::loopback())
        .telemetry(&telemetry())
        .handler(WORK, work)
        .build()
        .unwrap();
    let url = serve_monitoring(&endpoints).await;
    let began = Instant::now();
    assert!(scrape(&url, TEXT).await.contains("async_job_queued_total{job_type=\"Work\"} 0"));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn monitoring_routes_need_access() {
    let endpoints =
        AsyncEndpoints::builder(store()).telemetry(&telemetry()).access(Access::token("secret")).build().unwrap();
    let url = serve_monitoring(&endpoints).await;
    let client = reqwest::Client::new();
    for path in ["/metrics", "/metrics/jobs"] {
        let refused = client.get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let granted = client.get(format!("{url}{path}")).bearer_auth("secret").send().await.unwrap();
        assert_eq!(granted.status(), StatusCode::OK);
    }
}
