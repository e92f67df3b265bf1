//! Waiting for jobs over HTTP, and reading results.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Instant};

use async_endpoints::{Endpoint, JobContext, JobError, JobId, JobType};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use support::Service;
use tokio::sync::Semaphore;

const GATED: JobType<(), u32> = JobType::new("Gated");

/// A service whose jobs report progress and end when the gate gets permits.
async fn gated() -> (Service, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let passes = gate.clone();
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/gated", GATED)).handler(GATED, move |ctx: JobContext<()>| {
            let gate = passes.clone();
            async move {
                ctx.progress().set(1, 2);
                gate.acquire().await?.forget();
                Ok(7)
            }
        })
    })
    .await;
    (service, gate)
}

/// Status, `ETag`, `Preference-Applied` and body.
async fn answer(request: RequestBuilder) -> (StatusCode, String, Option<String>, Value) {
    let response = request.send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, etag, applied) = (response.status(), header("etag").unwrap(), header("preference-applied"));
    assert_eq!(header("vary").as_deref(), Some("Prefer"));
    (status, etag, applied, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn submit_with_wait_returns_ended_job_or_202() {
    let (service, gate) = gated().await;
    let submit = |wait: &str| service.client.post(service.url("/gated")).header("prefer", wait.to_owned());
    let (status, _, applied, job) = answer(submit("wait=0")).await;
    assert_eq!((status, applied), (StatusCode::ACCEPTED, None));
    assert!(job["completedAt"].is_null());
    gate.add_permits(2);
    let (status, _, applied, job) = answer(submit("wait=20")).await;
    assert_eq!((status, applied.as_deref()), (StatusCode::OK, Some("wait=20")));
    assert_eq!((&job["status"], &job["result"]), (&json!("Completed"), &json!(7)));
    service.stop().await;
}

#[tokio::test]
async fn conditional_wait_ends_with_each_change() {
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let url = service.url(&format!("/jobs/{id}"));
    let poll =
        |known: &str| service.client.get(&url).header("prefer", "wait=20").header("if-none-match", known.to_owned());
    // Each change moves the version: claimed, progress, completed.
    let mut etag = "\"1\"".to_owned();
    let mut gate = Some(gate);
    loop {
        let (status, next, applied, job) = answer(poll(&etag)).await;
        assert_eq!((status, applied.as_deref()), (StatusCode::OK, Some("wait=20")));
        assert_ne!(next, etag);
        etag = next;
        if job["status"] == "Completed" {
            break;
        }
        if job["progress"]["percent"] == 50.0
            && let Some(gate) = gate.take()
        {
            gate.add_permits(1);
        }
    }
    let unchanged = service.client.get(format!("{url}?wait=0")).header("if-none-match", &etag);
    let (status, same, ..) = answer(unchanged).await;
    assert_eq!((status, same), (StatusCode::NOT_MODIFIED, etag));
    let (status, _, applied, job) = answer(service.client.get(format!("{url}?wait=20"))).await;
    assert_eq!((status, applied, &job["result"]), (StatusCode::OK, None, &json!(7)));
    let bad = service.client.get(format!("{url}?wait=soon")).send().await.unwrap();
    assert_eq!(
        (bad.status(), bad.json::<Value>().await.unwrap()["code"].clone()),
        (StatusCode::BAD_REQUEST, json!("INVALID_QUERY"))
    );
    service.stop().await;
}

#[tokio::test]
async fn result_is_409_until_job_ended() {
    const FAIL: JobType<(), ()> = JobType::new("Fail");
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let get = |id: JobId| service.client.get(service.url(&format!("/jobs/{id}/result"))).send();
    let early = get(id).await.unwrap();
    assert_eq!((early.status(), early.headers().contains_key("retry-after")), (StatusCode::CONFLICT, true));
    assert_eq!(early.json::<Value>().await.unwrap()["code"], "JOB_NOT_ENDED");
    gate.add_permits(1);
    service.ended(id).await;
    let late = get(id).await.unwrap();
    assert_eq!((late.status(), late.text().await.unwrap().as_str()), (StatusCode::OK, "7"));
    assert_eq!(get(JobId::random()).await.unwrap().status(), StatusCode::NOT_FOUND);
    service.stop().await;

    let service = Service::start(|builder| {
        builder.handler(FAIL, async |_: JobContext<()>| {
            Err(JobError::permanent("NO_PAPER", "There is no paper.").status(409))
        })
    })
    .await;
    let id = service.endpoints.submit(FAIL, ()).await.unwrap().job.id;
    service.ended(id).await;
    let failed = service.client.get(service.url(&format!("/jobs/{id}/result"))).header("if-none-match", "*");
    let failed = failed.send().await.unwrap();
    assert_eq!(failed.headers()["content-type"], "application/problem+json");
    assert_eq!(
        (failed.status().as_u16(), failed.json::<Value>().await.unwrap()["code"].clone()),
        (409, json!("NO_PAPER"))
    );
    service.stop().await;
}

#[tokio::test]
async fn all_waits_for_one_job_end_with_it() {
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let waits = (0..50).map(|_| answer(service.client.get(service.url(&format!("/jobs/{id}?wait=20")))));
    let opened = async {
        // Gives the waits time to start.
        while service.job(id).await["status"] != "InProgress" {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(waits), opened);
    for (status, _, _, job) in answers {
        assert_eq!((status, &job["status"]), (StatusCode::OK, &json!("Completed")));
    }
    service.stop().await;
}

#[tokio::test]
async fn wait_ends_at_timeout_and_at_shutdown() {
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let url = service.url(&format!("/jobs/{id}"));
    let began = Instant::now();
    let (status, _, _, job) = answer(service.client.get(format!("{url}?wait=1"))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(job["completedAt"].is_null() && began.elapsed().as_secs_f64() >= 1.0);

    let held = tokio::spawn(answer(service.client.get(format!("{url}?wait=60"))));
    let (status, ..) = answer(service.client.get(&url)).await;
    assert_eq!(status, StatusCode::OK);
    service.endpoints.shutdown();
    let (status, _, _, job) = held.await.unwrap();
    assert_eq!((status, &job["status"]), (StatusCode::OK, &json!("InProgress")));
    gate.add_permits(1);
    service.stop().await;
}
