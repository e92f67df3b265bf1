//! The health routes over HTTP, with faults in the store.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    Access, AsyncEndpoints, BuildError, Builder, Endpoint, JobContext, JobType, MemoryStore, Options,
    axum::{self, response::IntoResponse},
    core::JobStore,
    health::{BoxError, Check, CheckResult, HealthStatus},
};
use async_endpoints_testkit::FlakyStore;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Service, TestStore, builder, flaky_store, hooked::HookedStore, store, until};
use tower_service::Service as _;

const WORK: JobType<(), ()> = JobType::new("Work").queue_depth(2);

/// Serves these endpoints with their monitoring routes.
async fn serve(store: TestStore, endpoints: AsyncEndpoints) -> Service {
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

async fn start(build: impl FnOnce(Builder) -> Builder) -> Service {
    let store = store();
    let endpoints = build(builder(&store)).build().unwrap();
    serve(store, endpoints).await
}

async fn health(service: &Service, path: &str) -> (StatusCode, Value) {
    let response = service.client.get(service.url(path)).send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status(), response.json().await.unwrap())
}

/// The entry of a check.
async fn entry(service: &Service, check: &str) -> Value {
    let (_, report) = health(service, "/health").await;
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|entry| entry["name"] == check).unwrap().clone()
}

/// Waits until all checks have a result.
async fn all_checked(service: &Service) {
    until(async || {
        let (_, report) = health(service, "/health").await;
        report["checks"].as_array().unwrap().iter().all(|check| check["description"] != "not checked yet")
    })
    .await;
}

fn names(report: &Value) -> Vec<&str> {
    report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn degraded() -> Check {
    Check::new(async || Ok::<_, BoxError>(CheckResult::degraded("slow")))
}

#[tokio::test]
async fn report_has_all_checks_in_the_shape_of_aspnet() {
    let service = start(|builder| builder.handler(WORK, async |_: JobContext<()>| Ok(()))).await;
    all_checked(&service).await;
    let (status, report) = health(&service, "/health").await;
    assert_eq!((status, &report["status"]), (StatusCode::OK, &json!("Healthy")), "{report}");
    let all = ["asyncendpoints", "memory", "asyncendpoints.queuedepth", "process_allocated_memory", "workers"];
    assert_eq!(names(&report), all);
    assert_eq!(keys(&report), ["checks", "status", "totalDuration"]);
    let store = &report["checks"][0];
    assert_eq!(keys(store), ["data", "description", "duration", "name", "status", "tags"]);
    assert_eq!(keys(&store["data"]), ["max_retries", "store_latency_ms", "stuck_jobs"]);
    assert_eq!((&store["description"], &store["tags"]), (&Value::Null, &json!(["ready"])));
    assert!(store["duration"].as_str().unwrap().starts_with("00:00:00."), "{store}");
    assert_eq!(names(&health(&service, "/health/ready").await.1), all[..2]);
    assert_eq!(names(&health(&service, "/health/live").await.1), ["runtime", "worker"]);
}

#[tokio::test]
async fn caller_without_access_sees_the_status() {
    let service = start(|builder| builder.access(Access::closed()).health_check("slow", degraded())).await;
    all_checked_closed(&service).await;
    let status = |status: &str| (StatusCode::OK, json!({ "status": status }));
    assert_eq!(health(&service, "/health").await, status("Degraded"));
    assert_eq!(health(&service, "/health/ready").await, status("Healthy"));
    assert_eq!(health(&service, "/health/live").await, status("Healthy"));
}

async fn all_checked_closed(service: &Service) {
    until(async || health(service, "/health").await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn unhealthy_ready_check_answers_503() {
    let fails = || Check::new(async || Err::<CheckResult, _>(BoxError::from("no route to prices")));
    let with = |check: Check| async {
        let service = start(|builder| builder.health_check("prices", check)).await;
        all_checked(&service).await;
        (health(&service, "/health").await.0, health(&service, "/health/ready").await.0)
    };
    assert_eq!(with(fails()).await, (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(with(fails().tag("ready")).await, (unavailable, unavailable));
    let degraded = fails().tag("ready").failure_status(HealthStatus::Degraded);
    assert_eq!(with(degraded).await, (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn response_writer_gets_details_only_with_access() {
    let text = |builder: Builder| {
        let line =
            |report: &async_endpoints::health::HealthReport| format!("{} {}", report.status, report.checks.len());
        builder.health_response(move |report| (StatusCode::IM_A_TEAPOT, line(report)).into_response())
    };
    let body = async |access| {
        let service = start(|builder| text(builder.access(access))).await;
        let response = service.client.get(service.url("/health/live")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        response.text().await.unwrap()
    };
    assert_eq!(body(Access::closed()).await, "Healthy 0");
    assert_eq!(body(Access::open()).await, "Healthy 2");
}

#[tokio::test]
async fn application_replaces_a_built_in_check() {
    let service = start(|builder| builder.health_check("process_allocated_memory", degraded())).await;
    all_checked(&service).await;
    assert_eq!(entry(&service, "process_allocated_memory").await["description"], "slow");
}

#[tokio::test]
async fn invalid_check_name_is_rejected() {
    let build = |names: &[&str]| {
        let builder = AsyncEndpoints::builder(MemoryStore::new());
        let builder = names.iter().fold(builder, |builder, name| builder.health_check(*name, degraded()));
        builder.build().map(drop)
    };
    assert_eq!(build(&["a", "b"]), Ok(()));
    for names in [&["a", "a"][..], &["two words"], &[""], &["shutdown"]] {
        let Err(BuildError::HealthCheck { name, .. }) = build(names) else { panic!("{names:?}") };
        assert_eq!(name, names[0]);
    }
}

#[tokio::test]
async fn queue_depth_degrades_and_stays_ready() {
    // A process without a handler, so that its jobs wait.
    let service = start(|builder| builder.endpoint(Endpoint::post("/work", WORK))).await;
    for _ in 0..2 {
        service.submit("/work", Value::Null).await;
    }
    until(async || entry(&service, "asyncendpoints.queuedepth").await["status"] == "Degraded").await;
    let depth = entry(&service, "asyncendpoints.queuedepth").await;
    assert_eq!(depth["description"], "Work has 2 queued jobs, limit 2");
    assert_eq!(depth["data"], json!({ "queued_jobs": 2, "queued_jobs.Work": 2 }));
    until(async || entry(&service, "workers").await["status"] == "Degraded").await;
    assert_eq!(health(&service, "/health").await.0, StatusCode::OK);
    assert_eq!(health(&service, "/health/ready").await, (StatusCode::OK, health(&service, "/health/ready").await.1));
}

#[tokio::test]
async fn store_outage_is_unhealthy_until_it_ends() {
    let (inner, flaky) = flaky_store();
    flaky.outage(true);
    let endpoints = AsyncEndpoints::builder(flaky.clone()).access(Access::loopback()).build().unwrap();
    let service = serve(inner, endpoints).await;
    until(async || health(&service, "/health/ready").await.1["checks"][0]["status"] == "Unhealthy").await;
    assert_eq!(health(&service, "/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health(&service, "/health/live").await.0, StatusCode::OK, "a restart would not help");
    flaky.outage(false);
    until(async || health(&service, "/health/ready").await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn probes_answer_while_the_store_hangs() {
    let inner = store();
    let hanging = FlakyStore::new(Arc::new(inner.clone())).delays(Duration::from_secs(3600));
    let endpoints = AsyncEndpoints::builder(hanging).access(Access::loopback()).build().unwrap();
    let service = serve(inner, endpoints).await;
    for path in ["/health", "/health/ready", "/health/live"] {
        let (began, _) = (Instant::now(), health(&service, path).await);
        assert!(began.elapsed() < Duration::from_millis(400), "{path}: {:?}", began.elapsed());
    }
    let answers = async |path| health(&service, path).await.0;
    assert_eq!(answers("/health/ready").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answers("/health/live").await, StatusCode::OK);
}

#[tokio::test]
async fn ten_thousand_probes_leave_nothing_behind() {
    let (inner, calls) = (store(), Arc::new(AtomicU64::new(0)));
    let counted = calls.clone();
    let counting = HookedStore::new(inner.clone()).before(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let endpoints = AsyncEndpoints::builder(counting).access(Access::open()).build().unwrap();
    // Without a worker, whose calls would be counted as well. Checks read the statistics, the pauses of types, and the store.
    let mut routes = endpoints.monitoring_routes::<()>();
    let began = Instant::now();
    for _ in 0..10_000 {
        let probe = axum::http::Request::get("/health").body(axum::body::Body::empty()).unwrap();
        let answer = routes.call(probe).await.unwrap();
        assert_ne!(answer.status(), StatusCode::NOT_FOUND);
    }
    let limit = 4 + began.elapsed().as_secs();
    assert!((1..=limit).contains(&calls.load(Ordering::Relaxed)), "{calls:?} calls, at most {limit}");
    let stats = inner.stats(&Default::default()).await.unwrap();
    assert_eq!((stats.types.len(), stats.workers.len()), (0, 0));
}

#[tokio::test]
async fn slow_store_is_degraded_and_ready() {
    let inner = store();
    let slow = HookedStore::new(inner.clone()).delay(Duration::from_millis(1_050));
    let endpoints = AsyncEndpoints::builder(slow).access(Access::loopback()).build().unwrap();
    let service = serve(inner, endpoints).await;
    all_checked(&service).await;
    let check = entry(&service, "asyncendpoints").await;
    assert_eq!(check["status"], "Degraded");
    let description = check["description"].as_str().unwrap();
    assert!(description.starts_with("the store took 1") && description.ends_with(" ms, more than 1000 ms"), "{check}");
    assert_eq!(health(&service, "/health/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn stop_request_ends_readiness_before_the_drain() {
    let store = store();
    let options = Options { shutdown_delay: Duration::from_secs(3600), ..support::quick() };
    let endpoints = builder(&store).options(options).endpoint(Endpoint::post("/work", WORK)).build().unwrap();
    let service = serve(store, endpoints).await;
    all_checked(&service).await;
    assert_eq!(health(&service, "/health/ready").await.0, StatusCode::OK);
    service.endpoints.shutdown();
    let (status, report) = health(&service, "/health/ready").await;
    assert_eq!(
        (status, names(&report)),
        (StatusCode::SERVICE_UNAVAILABLE, vec!["asyncendpoints", "memory", "shutdown"])
    );
    assert_eq!(health(&service, "/health").await.0, StatusCode::OK);
    service.submit("/work", Value::Null).await;
    assert!(!service.endpoints.is_shutting_down());
}

#[tokio::test]
async fn checks_are_metrics() {
    let telemetry = async_endpoints::Telemetry::builder().build().unwrap();
    let service = start(|builder| builder.telemetry(&telemetry).health_check("slow", degraded())).await;
    all_checked(&service).await;
    let text = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"async_health_status{check="memory"} 2"#,
        r#"async_health_status{check="slow"} 1"#,
        r#"async_health_changes_total{check="slow"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing: {text}");
    }
}

#[tokio::test]
async fn document_lists_health_routes_if_mounted() {
    let paths = async |service: &Service| {
        let answer = service.client.get(service.url("/openapi.json")).send().await.unwrap();
        let document: Value = answer.json().await.unwrap();
        document["paths"].as_object().unwrap().keys().filter(|path| path.starts_with("/health")).count()
    };
    let with = start(|builder| builder).await;
    let without = Service::start(|builder| builder).await;
    assert_eq!((paths(&with).await, paths(&without).await), (3, 0));
}
