//! What `/metrics`, `/metrics/jobs` and `stats` say after known work.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
    time::Duration,
};

use async_endpoints::{
    Access, AsyncEndpoints, BuildError, Endpoint, JobContext, JobError, JobType, MemoryStore, Options, Submission,
    Telemetry,
    axum::response::Response,
    core::{
        JobName, JobStore,
        store::{Claim, LeaseToken, StoreOperation, TypeQuota, WorkerId},
    },
    telemetry::CATALOGUE,
};
use async_endpoints_testkit::{FlakyStore, When};
use flate2::read::GzDecoder;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{PATIENCE, Service, ended, quick, routes, store};

const WORK: JobType<u32, u32> = JobType::new("Work");
const IDLE: JobType<(), ()> = JobType::new("Idle");

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let line = line.split(" # ").next().unwrap();
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or(f64::NAN))
    };
    lines.map(sample).collect()
}

/// 0 completes, 1 fails for good, 2 fails once, 3 panics once, 4 waits to be canceled.
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

async fn check(work: Submission<u32>) -> Result<Submission<u32>, Response> {
    assert_ne!(*work.request(), 5, "a validator that panics");
    Ok(work)
}

async fn service(telemetry: &Telemetry) -> Service {
    let store = store();
    let builder = support::builder(&store).telemetry(telemetry);
    let endpoints = builder
        .endpoint(Endpoint::post("/work", WORK).validate(check))
        .endpoint(Endpoint::post("/idle", IDLE))
        .handler(WORK, work)
        .build()
        .unwrap();
    let app = routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

async fn scrape(service: &Service, accept: &str) -> String {
    let response = service.client.get(service.url("/metrics")).header("accept", accept).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.text().await.unwrap()
}

#[tokio::test]
async fn counts_after_known_work_are_exact() {
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
    let running = service.endpoints.clone();
    while service.job(last).await["status"] != "InProgress" {
        tokio::task::yield_now().await;
    }
    running.cancel(last).await.unwrap();
    for id in &ids {
        ended(&service.endpoints, *id).await;
    }
    // One that is canceled before it runs.
    let delayed = service.endpoints.submit(WORK, 0).delay(Duration::from_secs(60)).await.unwrap().job.id;
    service.endpoints.cancel(delayed).await.unwrap();
    let all = async {
        // The last settlement is counted a moment after its end can be read.
        loop {
            let text = scrape(&service, "*/*").await;
            if samples(&text)[r#"async_job_processed_total{job_type="Work"}"#] == 6.0 {
                break text;
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, all).await.unwrap();
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
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(
        (0.0..3600.0).contains(&(now - value("process_start_time_seconds"))),
        "{}",
        value("process_start_time_seconds")
    );
    assert!(value(r#"async_store_operation_time_seconds_count{operation="settle",outcome="ok",store="memory"}"#) > 0.0);
    let posts = samples.iter().filter(|(name, _)| {
        name.starts_with("http_server_request_duration_seconds_count") && name.contains("http_route=\"/work\"")
    });
    assert_eq!(posts.map(|(_, count)| count).sum::<f64>(), 12.0);
    service.stop().await;
}

#[tokio::test]
async fn every_metric_is_there_from_the_start_or_with_its_first_request() {
    let telemetry = Telemetry::builder().build().unwrap();
    let service = service(&telemetry).await;
    scrape(&service, "*/*").await;
    let text = scrape(&service, "*/*").await;
    for instrument in CATALOGUE {
        let name = instrument.prometheus_name();
        assert!(text.contains(&format!("# TYPE {name} {}\n", instrument.kind.name())), "{name} is missing");
    }
    let known: Vec<String> = CATALOGUE.iter().map(|instrument| instrument.prometheus_name()).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(name == "target_info" || known.iter().any(|known| known == name), "{name} is in no catalogue");
    }
    assert!(!text.contains("otel_scope"), "labels that nobody asked for");
    service.stop().await;
}

/// What users rely on, written out: it does not change with the catalogue. Prometheus' name, kind and labels.
const PROMISED: [(&str, &str, &[&str]); 19] = [
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
    ("async_worker_slots", "gauge", &["state"]),
    ("async_store_operation_time_seconds", "histogram", &["operation", "outcome", "store"]),
    (
        "http_server_request_duration_seconds",
        "histogram",
        &["http_request_method", "http_response_status_code", "http_route", "url_scheme"],
    ),
    ("build_info", "gauge", &["async_endpoints_version", "version"]),
];

/// Bounds of the histograms of jobs, as text writes them.
const BOUNDS: &str = "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 1800 3600 +Inf";

/// The labels of a sample, by name.
fn labels_of(sample: &str) -> BTreeMap<&str, &str> {
    let Some((_, labels)) = sample.trim_end_matches('}').split_once('{') else { return BTreeMap::new() };
    labels
        .split("\",")
        .map(|label| label.split_once("=\"").unwrap())
        .map(|(n, v)| (n, v.trim_end_matches('"')))
        .collect()
}

#[tokio::test]
async fn names_kinds_labels_and_bounds_are_the_promised_ones() {
    let telemetry = Telemetry::builder().build().unwrap();
    let service = service(&telemetry).await;
    scrape(&service, "*/*").await;
    let text = scrape(&service, "*/*").await;
    let samples = samples(&text);
    for (name, kind, promised) in PROMISED {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        let suffix = if kind == "histogram" { "_bucket{" } else { "{" };
        let of_it = || {
            samples.keys().filter_map(|sample| {
                Some(labels_of(sample.strip_prefix(name).filter(|rest| rest.starts_with(suffix))?))
            })
        };
        let told: BTreeSet<&str> = of_it().flat_map(BTreeMap::into_keys).filter(|label| *label != "le").collect();
        assert_eq!(told, promised.iter().copied().collect(), "{name}");
        let in_catalogue = CATALOGUE.iter().find(|instrument| instrument.prometheus_name() == name).unwrap();
        let in_catalogue: BTreeSet<String> = in_catalogue.labels.iter().map(|label| label.replace('.', "_")).collect();
        assert!(told.iter().all(|label| in_catalogue.contains(*label)), "{name}: {told:?}, not {in_catalogue:?}");
    }
    for name in ["queue_time", "processing_time", "total_time"] {
        let of_idle = format!("async_job_{name}_seconds_bucket{{job_type=\"Idle\"");
        let lines = text.lines().filter(|line| line.starts_with(&of_idle));
        let lines = lines.filter(|line| name == "queue_time" || line.contains("outcome=\"completed\""));
        let bounds: Vec<&str> = lines.map(|line| labels_of(line.split(' ').next().unwrap())["le"]).collect();
        assert_eq!(bounds.join(" "), BOUNDS, "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn openmetrics_leads_from_a_bucket_to_the_job_and_its_trace() {
    let telemetry = Telemetry::builder().build().unwrap();
    let service = service(&telemetry).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request =
        service.client.post(service.url("/work")).header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let job: Value = request.json(&1).send().await.unwrap().json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    ended(&service.endpoints, id.parse().unwrap()).await;
    let exemplar = format!("# {{trace_id=\"{trace}\",span_id=\"b7ad6b7169203331\",job_id=\"{id}\"}} ");
    let told = async {
        loop {
            let text = scrape(&service, "application/openmetrics-text").await;
            let with = |start: &str| text.lines().any(|line| line.starts_with(start) && line.contains(&exemplar));
            let durations = ["queue_time", "processing_time", "total_time"];
            if with("async_job_failed_total{")
                && durations.iter().all(|name| with(&format!("async_job_{name}_seconds_bucket")))
            {
                break text;
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT async_job_queue_time_seconds seconds\n"));
    assert!(text.contains("# TYPE async_job_failed counter\n") && text.contains("le=\"1.0\""));
    assert!(!scrape(&service, "*/*").await.contains(" # {"), "the old format has no exemplars");
    service.stop().await;
}

#[tokio::test]
async fn a_scrape_is_compressed_for_those_who_take_it() {
    let telemetry = Telemetry::builder().build().unwrap();
    let service = service(&telemetry).await;
    let plain = service.client.get(service.url("/metrics")).send().await.unwrap();
    assert_eq!(plain.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let plain = plain.text().await.unwrap();
    let request = service.client.get(service.url("/metrics")).header("accept-encoding", "gzip");
    let packed = request.header("accept", "application/openmetrics-text").send().await.unwrap();
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
async fn however_many_scrape_the_store_is_asked_once_in_five_seconds() {
    let telemetry = Telemetry::builder().build().unwrap();
    let began = std::time::Instant::now();
    let service = service(&telemetry).await;
    let scrapes = (0..100).map(|_| async {
        scrape(&service, "*/*").await;
        assert_eq!(service.client.get(service.url("/metrics/jobs")).send().await.unwrap().status(), StatusCode::OK);
    });
    futures_util::future::join_all(scrapes).await;
    let text = samples(&scrape(&service, "*/*").await);
    let asked = began.elapsed().as_secs() / 5 + 1;
    let stats = text[r#"async_store_operation_time_seconds_count{operation="stats",outcome="ok",store="memory"}"#];
    assert!((1.0..=asked as f64).contains(&stats), "{stats} in {:?}", began.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn unknown_names_and_codes_add_no_series_beyond_the_cap() {
    let telemetry = Telemetry::builder().build().unwrap();
    let store = MemoryStore::new();
    const NAMED: JobType<u32, ()> = JobType::new("Named");
    let endpoints = AsyncEndpoints::builder(store)
        .options(Options { max_retries: 0, max_queue_size: 100_000, ..quick() })
        .telemetry(&telemetry)
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
    let service = axum_of(&endpoints).await;
    let text = reqwest::get(format!("{service}/metrics")).await.unwrap().text().await.unwrap();
    let samples = samples(&text);
    assert_eq!(samples[r#"async_job_queued_total{job_type="_other"}"#], 10_000.0);
    assert_eq!(samples[r#"async_job_jobs{job_type="_other",state="queued"}"#], 10_000.0);
    let failed = samples.keys().filter(|name| name.starts_with("async_job_failed_total")).count();
    assert_eq!(failed, 7 + 50 + 1, "our codes, fifty of the application's, and all others");
    assert_eq!(samples[r#"async_job_failed_total{error_type="_other",job_type="Named"}"#], 250.0);
    assert!(samples["async_metrics_overflow_total"] >= 10_000.0);
    assert!(samples.len() < 2_000, "{} samples", samples.len());
}

/// Serves the monitoring routes alone, and says where.
async fn axum_of(endpoints: &AsyncEndpoints) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = endpoints.monitoring_routes::<()>().into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// A worker takes a job, and is heard of no more.
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
async fn a_job_that_ends_with_its_worker_is_timed_and_leads_to_its_trace() {
    let telemetry = Telemetry::builder().build().unwrap();
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
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let response = service.client.post(service.url("/idle")).header("traceparent", parent).json(&()).send().await;
    let job: Value = response.unwrap().json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    claim_and_die(&service.store, "Idle").await;
    ended(&service.endpoints, id.parse().unwrap()).await;
    let lost = r#"async_job_failed_total{error_type="WORKER_LOST",job_type="Idle"} 1"#;
    let told = async {
        loop {
            let text = scrape(&service, "application/openmetrics-text").await;
            if text.contains(lost) {
                break text;
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, told).await.unwrap();
    let exemplar = format!("# {{trace_id=\"{}\",span_id=\"{}\",job_id=\"{id}\"}} ", &parent[3..35], &parent[36..52]);
    let with = |start: &str| text.lines().any(|line| line.starts_with(start) && line.contains(&exemplar));
    assert!(with(lost) && with(r#"async_job_total_time_seconds_bucket{job_type="Idle",outcome="failed""#), "{text}");
    let total = |part: &str| {
        samples(&text)[&format!(r#"async_job_total_time_seconds_{part}{{job_type="Idle",outcome="failed"}}"#)]
    };
    assert_eq!(total("count"), 1.0);
    assert!(total("sum") >= 0.4, "it waited at least for its lease to run out");
    service.stop().await;
}

#[tokio::test]
async fn a_lost_worker_and_an_outage_are_counted_as_what_they_were() {
    let telemetry = Telemetry::builder().build().unwrap();
    let store = store();
    let flaky = Arc::new(FlakyStore::new(store.clone()));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(Options { lease: Duration::from_secs(4), ..quick() })
        .telemetry(&telemetry)
        .handler(WORK, work)
        .build()
        .unwrap();
    let id = endpoints.submit(WORK, 0).await.unwrap().job.id;
    // Another worker takes it and dies.
    claim_and_die(&store, "Work").await;
    // The reply to the settlement is lost for so long that a renewal tells before that its lease is no more.
    const LOST: u32 = 4;
    for _ in 0..LOST {
        flaky.fail_next(StoreOperation::Settle, When::After);
    }
    let running = endpoints.clone();
    let running = tokio::spawn(async move { running.run().await });
    ended(&endpoints, id).await;
    let url = axum_of(&endpoints).await;
    let counted = async {
        loop {
            let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
            let samples = samples(&text);
            if samples[r#"async_job_processed_total{job_type="Work"}"#] > 0.0 {
                break samples;
            }
        }
    };
    let samples = tokio::time::timeout(PATIENCE, counted).await.unwrap();
    assert_eq!(samples[r#"async_job_processed_total{job_type="Work"}"#], 1.0);
    assert_eq!(samples[r#"async_job_recovered_total{job_type="Work"}"#], 1.0);
    assert_eq!(samples[r#"async_job_attempts_total{error_type="WORKER_LOST",job_type="Work",outcome="lost"}"#], 1.0);
    assert_eq!(
        samples[r#"async_store_operation_time_seconds_count{operation="settle",outcome="error",store="memory"}"#],
        f64::from(LOST)
    );
    endpoints.shutdown();
    running.await.unwrap().unwrap();
    store.verify().await;
}

#[tokio::test]
async fn one_set_of_endpoints_is_measured_at_a_time() {
    let telemetry = Telemetry::builder().build().unwrap();
    let build = || support::builder(&store()).telemetry(&telemetry).handler(WORK, work).build();
    let first = build().unwrap();
    let error = build().expect_err("it is taken");
    assert!(matches!(error, BuildError::TelemetryTaken), "{error}");
    drop(first);
    build().expect("it is free again");
}

#[tokio::test]
async fn stats_and_their_route_say_the_same_from_every_process() {
    let telemetry = Telemetry::builder().build().unwrap();
    let service = service(&telemetry).await;
    for kind in [0, 0, 0, 1] {
        let id = service.submit("/work", json!(kind)).await;
        ended(&service.endpoints, id).await;
    }
    service.endpoints.submit(WORK, 0).delay(Duration::from_secs(60)).await.unwrap();
    let document: Value = service.client.get(service.url("/metrics/jobs")).send().await.unwrap().json().await.unwrap();
    for (name, value) in [("completedJobs", 3), ("failedJobs", 1), ("scheduledJobs", 1), ("queuedJobs", 0)] {
        assert_eq!(document[name], value, "{name}");
        assert_eq!(document["jobTypes"]["Work"][name], value, "{name}");
        assert_eq!(document["jobTypes"]["Idle"][name], 0, "{name}");
    }
    assert_eq!((&document["errorRate"], &document["oldestQueuedAge"]), (&json!(25.0), &json!(null)));
    assert!(document["processingTime"]["p95"].as_f64().is_some_and(|millis| millis > 0.0));
    let stats = service.endpoints.stats(Duration::from_secs(3600)).await.unwrap();
    let other = AsyncEndpoints::builder(service.endpoints.store().clone()).build().unwrap();
    let elsewhere = other.stats(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((&stats.total, &stats.job_types["Work"]), (&elsewhere.total, &elsewhere.job_types["Work"]));
    assert_eq!(stats.total.error_rate, 25.0);
    service.stop().await;
}

#[tokio::test]
async fn off_is_off_and_a_provider_of_ones_own_gets_everything() {
    let service = Service::start(|builder| builder.handler(WORK, work)).await;
    let url = axum_of(&service.endpoints).await;
    assert_eq!(reqwest::get(format!("{url}/metrics")).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(reqwest::get(format!("{url}/metrics/jobs")).await.unwrap().status(), StatusCode::OK);
    service.stop().await;

    let exporter = opentelemetry_sdk::metrics::InMemoryMetricExporter::default();
    let provider =
        opentelemetry_sdk::metrics::SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    let telemetry = Telemetry::with_meter_provider(provider.clone());
    let service = self::service(&telemetry).await;
    let id = service.submit("/work", json!(0)).await;
    ended(&service.endpoints, id).await;
    telemetry.meter("mine").u64_counter("mine.counted").build().add(1, &[]);
    let flushed = provider.clone();
    tokio::task::spawn_blocking(move || flushed.force_flush()).await.unwrap().unwrap();
    let exported = exporter.get_finished_metrics().unwrap();
    let names: BTreeSet<&str> = exported
        .iter()
        .flat_map(|all| all.scope_metrics())
        .flat_map(|scope| scope.metrics())
        .map(|m| m.name())
        .collect();
    for name in CATALOGUE.iter().map(|instrument| instrument.name).chain(["mine.counted"]) {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(service.client.get(service.url("/metrics")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn gauges_have_no_value_rather_than_a_wrong_one_and_the_rest_is_told() {
    let telemetry = Telemetry::builder().build().unwrap();
    let flaky = Arc::new(FlakyStore::new(store()));
    let endpoints = AsyncEndpoints::builder(flaky.clone()).telemetry(&telemetry).handler(WORK, work).build().unwrap();
    flaky.outage(true);
    let url = axum_of(&endpoints).await;
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    assert!(!text.contains("async_job_jobs{") && text.contains("async_job_queued_total{job_type=\"Work\"} 0"));
    assert_eq!(reqwest::get(format!("{url}/metrics/jobs")).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_store_that_hangs_holds_no_scrape_up() {
    let telemetry = Telemetry::builder().build().unwrap();
    let hanging = FlakyStore::new(store()).delays(Duration::from_secs(120));
    let endpoints = AsyncEndpoints::builder(hanging).telemetry(&telemetry).handler(WORK, work).build().unwrap();
    let url = axum_of(&endpoints).await;
    let began = std::time::Instant::now();
    for _ in 0..3 {
        let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        assert!(text.contains("async_job_queued_total{job_type=\"Work\"} 0"));
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn monitoring_is_for_those_who_may() {
    let telemetry = Telemetry::builder().build().unwrap();
    let endpoints =
        AsyncEndpoints::builder(store()).telemetry(&telemetry).access(Access::token("secret")).build().unwrap();
    let url = axum_of(&endpoints).await;
    let client = reqwest::Client::new();
    for path in ["/metrics", "/metrics/jobs"] {
        let refused = client.get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let granted = client.get(format!("{url}{path}")).bearer_auth("secret").send().await.unwrap();
        assert_eq!(granted.status(), StatusCode::OK);
    }
}
