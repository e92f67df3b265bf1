//! Values of the series of job types and error codes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_endpoints::{Access, AsyncEndpoints, JobContext, JobError, JobType, MemoryStore, Options, Telemetry};
use reqwest::StatusCode;
use serde_json::json;

use super::{TEXT, WORK, samples, scrape, scrape_until, serve_monitoring, service, telemetry};
use crate::support::{ended, quick};

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
