//! The page `/metrics`: names, kinds, labels, exemplars, forms.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use async_endpoints::{
    Telemetry,
    telemetry::{CATALOGUE, Instrument},
};
use flate2::read::GzDecoder;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{OPENMETRICS, TEXT, samples, scrape, scrape_until, service, telemetry};
use crate::support::ended;

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
