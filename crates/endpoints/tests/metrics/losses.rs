//! Lost jobs, and settlements whose answers are lost.

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, Options,
    core::{
        JobName, JobStore,
        store::{Claim, JobLookup, LeaseToken, StoreOperation, TypeQuota, WorkerId},
    },
};
use async_endpoints_testkit::{FlakyStore, When};
use serde_json::Value;

use super::{IDLE, OPENMETRICS, TEXT, WORK, samples, scrape_until, serve_monitoring, telemetry, work};
use crate::support::{self, Service, ended, quick, routes, store};

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
