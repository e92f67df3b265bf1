//! `/metrics`, `/metrics/jobs` and `stats` after a known workload.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_endpoints::{
    Access, AsyncEndpoints, BuildError, Endpoint, JobContext, JobError, JobType, MemoryStore, Options, Submission,
    Telemetry,
    axum::response::Response,
    core::{
        JobName, JobStore,
        store::{Claim, JobLookup, LeaseToken, StoreOperation, TypeQuota, WorkerId},
    },
    telemetry::{CATALOGUE, Instrument},
};
use async_endpoints_testkit::{FlakyStore, When};
use flate2::read::GzDecoder;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{PATIENCE, Service, ended, quick, routes, store};

const WORK: JobType<u32, u32> = JobType::new("Work");
const IDLE: JobType<(), ()> = JobType::new("Idle");

const TEXT: &str = "text/plain";
const OPENMETRICS: &str = "application/openmetrics-text";

/// Values by series: name and labels.
type Samples = BTreeMap<String, f64>;

fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let line = line.split(" # ").next().unwrap();
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or(f64::NAN))
    };
    lines.map(sample).collect()
}

/// 0 completes, 1 fails finally, 2 fails once, 3 panics once, 4 waits for its cancellation.
async fn work(ctx: JobContext<u32>) -> Result<u32, JobError> {
    match (ctx.request(), ctx.attempt()) {
        (1, _) => Err(JobError::permanent("BROKEN", "It is broken.")),
        (2, 1) => Err("not yet")?,
        (3, 1) => panic!("not yet either"),
        (4, _) => {
            ctx.cancellation().cancelled().await;
            Err(JobError::canceled())
        }
        (n, _) => Ok(*n),
    }
}

/// A validator that panics on 5.
async fn check(work: Submission<u32>) -> Result<Submission<u32>, Response> {
    assert_ne!(*work.request(), 5);
    Ok(work)
}

fn telemetry() -> Telemetry {
    Telemetry::builder().build().unwrap()
}

async fn service(telemetry: &Telemetry) -> Service {
    let store = store();
    let endpoints = support::builder(&store)
        .telemetry(telemetry)
        .endpoint(Endpoint::post("/work", WORK).validate(check))
        .endpoint(Endpoint::post("/idle", IDLE))
        .handler(WORK, work)
        .build()
        .unwrap();
    let app = routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

/// Serves the monitoring routes alone. Returns their URL.
async fn serve_monitoring(endpoints: &AsyncEndpoints) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = endpoints.monitoring_routes::<()>().into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// `GET /metrics` under a base URL.
async fn scrape(url: &str, accept: &str) -> String {
    let client = reqwest::Client::new();
    let response = client.get(format!("{url}/metrics")).header("accept", accept).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.text().await.unwrap()
}

/// Scrapes until the condition holds: a settlement is counted a moment after the job's end can be read.
async fn scrape_until(url: &str, accept: &str, condition: impl Fn(&str) -> bool) -> String {
    let scrapes = async {
        loop {
            let text = scrape(url, accept).await;
            if condition(&text) {
                break text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, scrapes).await.unwrap()
}

#[tokio::test]
async fn known_workload_is_counted_exactly() {
    let telemetry = Telemetry::builder().service_name("exact").service_version("1.2.3").build().unwrap();
    let service = service(&telemetry).await;
    let mut ids = Vec::new();
    for kind in [0, 0, 0, 1, 2, 3, 4] {
        ids.push(service.submit("/work", json!(kind)).await);
    }
    assert_eq!(service.post("/work", json!("no number")).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(service.post("/work", json!(5)).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    for body in [json!(0), json!(0), json!(1)] {
        let request = service.client.post(service.url("/work")).header("idempotency-key", "k").json(&body);
        request.send().await.unwrap();
    }
    let last = *ids.last().unwrap();
    while service.job(last).await["status"] != "InProgress" {
        tokio::task::yield_now().await;
    }
    service.endpoints.cancel(last).await.unwrap();
    for id in &ids {
        ended(&service.endpoints, *id).await;
    }
    let delayed = service.endpoints.submit(WORK, 0).delay(Duration::from_secs(60)).await.unwrap().job.id;
    service.endpoints.cancel(delayed).await.unwrap();
    let processed = |text: &str| samples(text)[r#"async_job_processed_total{job_type="Work"}"#];
    let text = scrape_until(&service.url(""), TEXT, |text| processed(text) == 6.0).await;
    let samples = samples(&text);
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
    let of_work = |name: &str, labels: &str| value(&format!("async_job_{name}{{job_type=\"Work\"{labels}}}"));
    let attempts = |outcome: &str, code: &str| {
        let code = if code.is_empty() { String::new() } else { format!("error_type=\"{code}\",") };
        value(&format!("async_job_attempts_total{{{code}job_type=\"Work\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!(of_work("queued_total", ""), 9.0);
    for (result, count) in
        [("accepted", 9.0), ("duplicate", 1.0), ("conflict", 1.0), ("invalid", 1.0), ("rejected", 1.0)]
    {
        assert_eq!(of_work("submissions_total", &format!(",result=\"{result}\"")), count, "{result}");
    }
    assert_eq!((of_work("canceled_total", ""), of_work("retries_total", "")), (2.0, 2.0));
    assert_eq!(value(r#"async_job_failed_total{error_type="BROKEN",job_type="Work"}"#), 1.0);
    assert_eq!(
        (attempts("completed", ""), attempts("canceled", "JOB_CANCELED"), attempts("failed", "BROKEN")),
        (6.0, 1.0, 1.0)
    );
    assert_eq!((attempts("retried", "HANDLER_ERROR"), attempts("retried", "HANDLER_PANIC")), (1.0, 1.0));
    let count = |name: &str, outcome: &str| of_work(name, &format!(",outcome=\"{outcome}\""));
    assert_eq!(of_work("queue_time_seconds_count", ""), 10.0);
    assert_eq!(count("processing_time_seconds_count", "retried"), 2.0);
    assert_eq!(count("total_time_seconds_count", "canceled"), 2.0);
    assert_eq!(count("total_time_seconds_count", "completed"), 6.0);
    assert_eq!(value(r#"async_job_queued_total{job_type="Idle"}"#), 0.0);
    assert_eq!(value(r#"async_job_failed_total{error_type="JOB_TIMEOUT",job_type="Idle"}"#), 0.0);
    assert_eq!(value(r#"build_info{async_endpoints_version="0.1.0",version="1.2.3"}"#), 1.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - value("process_start_time_seconds");
    assert!((0.0..3600.0).contains(&age), "{age}");
    assert!(value(r#"async_store_operation_time_seconds_count{operation="settle",outcome="ok",store="memory"}"#) > 0.0);
    let posts = samples.iter().filter(|(name, _)| {
        name.starts_with("http_server_request_duration_seconds_count") && name.contains("http_route=\"/work\"")
    });
    assert_eq!(posts.map(|(_, count)| count).sum::<f64>(), 12.0);
    service.stop().await;
}

/// The metrics of a service without alerts.
fn without_alerts() -> impl Iterator<Item = &'static Instrument> {
    CATALOGUE.iter().filter(|metric| !metric.name.starts_with("async_alert."))
}

#[tokio::test]
async fn page_has_exactly_the_catalogue() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    scrape(&service.url(""), TEXT).await;
    // The second page has the duration of the first request.
    let text = scrape(&service.url(""), TEXT).await;
    let found: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let declared = without_alerts().map(|metric| format!("{} {}", metric.prometheus_name(), metric.kind.name()));
    let declared: BTreeSet<String> = declared.chain(["target_info gauge".to_owned()]).collect();
    assert_eq!(found, declared.iter().map(String::as_str).collect());
    assert!(!text.contains("otel_scope"));
    service.stop().await;
}

/// The published names, kinds and labels. Written out, so that a change of the catalogue fails the test.
const PUBLISHED: [(&str, &str, &[&str]); 21] = [
    ("async_job_queued_total", "counter", &["job_type"]),
    ("async_job_submissions_total", "counter", &["job_type", "result"]),
    ("async_job_processed_total", "counter", &["job_type"]),
    ("async_job_failed_total", "counter", &["error_type", "job_type"]),
    ("async_job_canceled_total", "counter", &["job_type"]),
    ("async_job_retries_total", "counter", &["job_type"]),
    ("async_job_recovered_total", "counter", &["job_type"]),
    ("async_job_attempts_total", "counter", &["error_type", "job_type", "outcome"]),
    ("async_job_queue_time_seconds", "histogram", &["job_type"]),
    ("async_job_processing_time_seconds", "histogram", &["job_type", "outcome"]),
    ("async_job_total_time_seconds", "histogram", &["job_type", "outcome"]),
    ("async_job_jobs", "gauge", &["job_type", "state"]),
    ("async_job_oldest_queued_age_seconds", "gauge", &["job_type"]),
    ("async_job_oldest_running_age_seconds", "gauge", &["job_type"]),
    ("async_job_stuck", "gauge", &["job_type"]),
    ("async_job_paused", "gauge", &["job_type"]),
    ("async_worker_slots", "gauge", &["state"]),
    ("async_store_operation_time_seconds", "histogram", &["operation", "outcome", "store"]),
    (
        "http_server_request_duration_seconds",
        "histogram",
        &["http_request_method", "http_response_status_code", "http_route", "url_scheme"],
    ),
    ("async_log_dropped_total", "counter", &["result"]),
    ("build_info", "gauge", &["async_endpoints_version", "version"]),
];

/// Bucket bounds of the job histograms.
const BOUNDS: &str = "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 1800 3600 +Inf";

/// Labels of a series by name.
fn labels_of(series: &str) -> BTreeMap<&str, &str> {
    let Some((_, labels)) = series.trim_end_matches('}').split_once('{') else { return BTreeMap::new() };
    let labels = labels.split("\",").map(|label| label.split_once("=\"").unwrap());
    labels.map(|(name, value)| (name, value.trim_end_matches('"'))).collect()
}

#[tokio::test]
async fn names_kinds_labels_and_bounds_are_as_published() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    scrape(&service.url(""), TEXT).await;
    let text = scrape(&service.url(""), TEXT).await;
    let samples = samples(&text);
    for (name, kind, published) in PUBLISHED {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is not a {kind}");
        let suffix = if kind == "histogram" { "_bucket{" } else { "{" };
        let series =
            samples.keys().filter(|series| series.strip_prefix(name).is_some_and(|rest| rest.starts_with(suffix)));
        let labels: BTreeSet<&str> =
            series.flat_map(|series| labels_of(series).into_keys()).filter(|label| *label != "le").collect();
        assert_eq!(labels, published.iter().copied().collect(), "{name}");
        let declared = CATALOGUE.iter().find(|instrument| instrument.prometheus_name() == name).unwrap();
        let declared: BTreeSet<String> = declared.labels.iter().map(|label| label.replace('.', "_")).collect();
        assert!(labels.iter().all(|label| declared.contains(*label)), "{name}: {labels:?}, not {declared:?}");
    }
    for name in ["queue_time", "processing_time", "total_time"] {
        let buckets = format!("async_job_{name}_seconds_bucket{{job_type=\"Idle\"");
        let lines = text.lines().filter(|line| line.starts_with(&buckets));
        let lines = lines.filter(|line| name == "queue_time" || line.contains("outcome=\"completed\""));
        let bounds: Vec<&str> = lines.map(|line| labels_of(line.split(' ').next().unwrap())["le"]).collect();
        assert_eq!(bounds.join(" "), BOUNDS, "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn exemplars_name_job_and_attempt_span() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    let request = service.client.post(service.url("/work"));
    let job: Value = request.json(&1).send().await.unwrap().json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    ended(&service.endpoints, id.parse().unwrap()).await;
    let has_all = |text: &str| {
        let end = format!(",job_id=\"{id}\"}} ");
        let exemplar = text.lines().find_map(|line| Some(line.split_once(&end)?.0.split_once(" # {")?.1));
        let Some(exemplar) = exemplar else { return false };
        assert!(exemplar.starts_with("trace_id=\"") && exemplar.contains("\",span_id=\""), "{exemplar}");
        assert!(!exemplar.contains(job["traceId"].as_str().unwrap()), "the attempt's trace, not the submission's");
        let has = |start: &str| text.lines().any(|line| line.starts_with(start) && line.contains(exemplar));
        let times = ["queue_time", "processing_time", "total_time"];
        has("async_job_failed_total{") && times.iter().all(|time| has(&format!("async_job_{time}_seconds_bucket")))
    };
    let text = scrape_until(&service.url(""), OPENMETRICS, has_all).await;
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT async_job_queue_time_seconds seconds\n"));
    assert!(text.contains("# TYPE async_job_failed counter\n") && text.contains("le=\"1.0\""));
    assert!(!scrape(&service.url(""), TEXT).await.contains(" # {"), "text 0.0.4 has no exemplars");
    service.stop().await;
}

#[tokio::test]
async fn gzip_is_used_if_accepted() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    let plain = service.client.get(service.url("/metrics")).send().await.unwrap();
    assert_eq!(plain.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let plain = plain.text().await.unwrap();
    let request = service.client.get(service.url("/metrics")).header("accept-encoding", "gzip");
    let packed = request.header("accept", OPENMETRICS).send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(packed.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let packed = packed.bytes().await.unwrap();
    assert!(packed.len() * 5 < plain.len(), "{} of {}", packed.len(), plain.len());
    let mut text = String::new();
    GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
    assert!(text.ends_with("# EOF\n"));
    service.stop().await;
}

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
async fn declared_error_codes_start_at_zero() {
    const CODED: JobType<bool, ()> = JobType::new("Coded").error_codes(&["DECLARED"]);
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .access(Access::loopback())
        .options(Options { max_retries: 0, ..quick() })
        .telemetry(&telemetry())
        .handler(CODED, async |ctx: JobContext<bool>| -> Result<(), JobError> {
            Err(JobError::permanent(if *ctx.request() { "DECLARED" } else { "UNDECLARED" }, ""))
        })
        .build()
        .unwrap();
    let url = serve_monitoring(&endpoints).await;
    let failed = |code| format!(r#"async_job_failed_total{{error_type="{code}",job_type="Coded"}}"#);
    let attempts =
        |outcome| format!(r#"async_job_attempts_total{{error_type="DECLARED",job_type="Coded",outcome="{outcome}"}}"#);
    let before = samples(&scrape(&url, TEXT).await);
    for series in [failed("DECLARED"), attempts("failed"), attempts("retried")] {
        assert_eq!(before.get(&*series), Some(&0.0), "{series}");
    }
    for declared in [true, true, false] {
        endpoints.submit(CODED, declared).await.unwrap();
    }
    endpoints.run_until_idle().await.unwrap();
    let after = samples(&scrape(&url, TEXT).await);
    assert_eq!((after[&*failed("DECLARED")], after[&*attempts("failed")]), (2.0, 2.0));
    assert_eq!(after[&*failed("UNDECLARED")], 1.0);
}

#[tokio::test]
async fn paused_type_is_shown_until_its_resume() {
    let telemetry = telemetry();
    let service = service(&telemetry).await;
    let has = |idle: u8| {
        let [idle, work] =
            [("Idle", idle), ("Work", 0)].map(|(of, value)| format!("async_job_paused{{job_type=\"{of}\"}} {value}\n"));
        move |text: &str| text.contains(&idle) && text.contains(&work)
    };
    scrape_until(&service.url(""), TEXT, has(0)).await;
    service.endpoints.pause_type("Idle", "no paper", None).await.unwrap();
    scrape_until(&service.url(""), TEXT, has(1)).await;
    service.endpoints.resume_type("Idle").await.unwrap();
    scrape_until(&service.url(""), TEXT, has(0)).await;
    service.stop().await;
}

#[tokio::test]
async fn undeclared_types_and_excess_codes_share_series() {
    const NAMED: JobType<u32, ()> = JobType::new("Named");
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .access(Access::loopback())
        .options(Options { max_retries: 0, max_queue_size: 100_000, ..quick() })
        .telemetry(&telemetry())
        .handler(NAMED, async |ctx: JobContext<u32>| -> Result<(), JobError> {
            Err(JobError::permanent(format!("CODE_{}", ctx.request()), ""))
        })
        .build()
        .unwrap();
    for n in 0..10_000u32 {
        let name: &'static str = Box::leak(format!("Unknown{n}").into_boxed_str());
        endpoints.submit(JobType::<u32, ()>::new(name), 0).await.unwrap();
    }
    for n in 0..300 {
        endpoints.submit(NAMED, n).await.unwrap();
    }
    endpoints.run_until_idle().await.unwrap();
    let samples = samples(&scrape(&serve_monitoring(&endpoints).await, TEXT).await);
    assert_eq!(samples[r#"async_job_queued_total{job_type="_other"}"#], 10_000.0);
    assert_eq!(samples[r#"async_job_jobs{job_type="_other",state="queued"}"#], 10_000.0);
    let failed = samples.keys().filter(|name| name.starts_with("async_job_failed_total")).count();
    assert_eq!(failed, 7 + 50 + 1, "the library's codes, the first 50 of the application, and _other");
    assert_eq!(samples[r#"async_job_failed_total{error_type="_other",job_type="Named"}"#], 250.0);
    assert!(samples["async_metrics_overflow_total"] >= 10_000.0);
    assert!(samples.len() < 2_000, "{} samples", samples.len());
}

/// Claims a job as a worker that dies at once.
async fn claim_and_die(store: &impl JobStore, name: &str) {
    let claim = Claim {
        worker: WorkerId(uuid::Uuid::new_v4()),
        token: LeaseToken::random(),
        quotas: vec![TypeQuota { name: JobName::new(name).unwrap(), max: 1, timeout: Duration::from_secs(60) }],
        max: 1,
        max_bytes: 1 << 20,
        lease: Duration::from_millis(400),
    };
    assert_eq!(store.claim(&claim).await.unwrap().attempts.len(), 1);
}

#[tokio::test]
async fn lost_job_has_total_time_and_exemplar() {
    let telemetry = telemetry();
    let store = store();
    let endpoints = support::builder(&store)
        .options(Options { max_losses: 0, ..quick() })
        .telemetry(&telemetry)
        .endpoint(Endpoint::post("/idle", IDLE))
        .handler(WORK, work)
        .build()
        .unwrap();
    let app = routes(&endpoints).merge(endpoints.monitoring_routes());
    let service = Service::serve_app(store, endpoints, app).await;
    let response = service.client.post(service.url("/idle")).json(&()).send().await;
    let job: Value = response.unwrap().json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    let JobLookup::Found(stored) = service.store.get(id.parse().unwrap()).await.unwrap() else { panic!("not found") };
    let parent = stored.trace.unwrap().traceparent.to_string();
    claim_and_die(&service.store, "Idle").await;
    ended(&service.endpoints, id.parse().unwrap()).await;
    let lost = r#"async_job_failed_total{error_type="WORKER_LOST",job_type="Idle"} 1"#;
    let text = scrape_until(&service.url(""), OPENMETRICS, |text| text.contains(lost)).await;
    let exemplar = format!("# {{trace_id=\"{}\",span_id=\"{}\",job_id=\"{id}\"}} ", &parent[3..35], &parent[36..52]);
    let has = |start: &str| text.lines().any(|line| line.starts_with(start) && line.contains(&exemplar));
    assert!(has(lost) && has(r#"async_job_total_time_seconds_bucket{job_type="Idle",outcome="failed""#), "{text}");
    let samples = samples(&text);
    let total =
        |part: &str| samples[&format!(r#"async_job_total_time_seconds_{part}{{job_type="Idle",outcome="failed"}}"#)];
    assert_eq!(total("count"), 1.0);
    assert!(total("sum") >= 0.4, "at least the lease");
    service.stop().await;
}

#[tokio::test]
async fn recovery_and_repeated_settlement_count_once() {
    /// Settlements whose answers are lost. Meanwhile a renewal finds the lease gone.
    const LOST_ANSWERS: u32 = 4;
    let store = store();
    let flaky = Arc::new(FlakyStore::new(store.clone()));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .access(Access::loopback())
        .options(Options { lease: Duration::from_secs(4), ..quick() })
        .telemetry(&telemetry())
        .handler(WORK, work)
        .build()
        .unwrap();
    let id = endpoints.submit(WORK, 0).await.unwrap().job.id;
    claim_and_die(&store, "Work").await;
    for _ in 0..LOST_ANSWERS {
        flaky.fail_next(StoreOperation::Settle, When::After);
    }
    let running = endpoints.clone();
    let running = tokio::spawn(async move { running.run().await });
    ended(&endpoints, id).await;
    let processed = |text: &str| samples(text)[r#"async_job_processed_total{job_type="Work"}"#];
    let text = scrape_until(&serve_monitoring(&endpoints).await, TEXT, |text| processed(text) > 0.0).await;
    assert_eq!(processed(&text), 1.0);
    let samples = samples(&text);
    assert_eq!(samples[r#"async_job_recovered_total{job_type="Work"}"#], 1.0);
    assert_eq!(samples[r#"async_job_attempts_total{error_type="WORKER_LOST",job_type="Work",outcome="lost"}"#], 1.0);
    assert_eq!(
        samples[r#"async_store_operation_time_seconds_count{operation="settle",outcome="error",store="memory"}"#],
        f64::from(LOST_ANSWERS)
    );
    endpoints.shutdown();
    running.await.unwrap().unwrap();
    store.verify().await;
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
async fn own_meter_provider_gets_all_metrics() {
    let exporter = opentelemetry_sdk::metrics::InMemoryMetricExporter::default();
    let provider =
        opentelemetry_sdk::metrics::SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    let telemetry = Telemetry::with_meter_provider(provider.clone());
    let service = service(&telemetry).await;
    let id = service.submit("/work", json!(0)).await;
    ended(&service.endpoints, id).await;
    telemetry.meter("mine").u64_counter("mine.counted").build().add(1, &[]);
    tokio::task::spawn_blocking(move || provider.force_flush()).await.unwrap().unwrap();
    let exported = exporter.get_finished_metrics().unwrap();
    let scopes = exported.iter().flat_map(|resource| resource.scope_metrics());
    let names: BTreeSet<&str> = scopes.flat_map(|scope| scope.metrics()).map(|metric| metric.name()).collect();
    for name in without_alerts().map(|instrument| instrument.name).chain(["mine.counted"]) {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(service.client.get(service.url("/metrics")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
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
