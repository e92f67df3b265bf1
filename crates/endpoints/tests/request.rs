//! `GET /jobs/{id}/request` and `GET /ops/failures`.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{Endpoint, JobContext, JobError, JobId, JobType, Options, StoredRequest};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Service, quick};

const PAY: JobType<Value, ()> = JobType::new("Pay").max_retries(0);
const WORKS: JobType<Value, ()> = JobType::new("Works");

/// A service that captures `authorization` too.
async fn service(options: Options, redact: impl Fn(&mut StoredRequest) + Send + Sync + 'static) -> Service {
    let captured_headers = vec!["authorization".to_owned(), "x-user-id".to_owned()];
    Service::start(|builder| {
        builder
            .options(Options { captured_headers, ..options })
            .redact_requests(redact)
            .endpoint(Endpoint::post("/pay/{shop}", PAY))
            .endpoint(Endpoint::post("/works", WORKS))
            .handler(PAY, async |_: JobContext<Value>| Err(JobError::permanent("NO", "It always fails.")))
            .handler(WORKS, async |_: JobContext<Value>| Ok(()))
    })
    .await
}

fn exposed() -> Options {
    Options { expose_requests: true, ..quick() }
}

async fn get(service: &Service, path: &str) -> (StatusCode, Value) {
    let response = service.client.get(service.url(path)).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn request(service: &Service, id: JobId) -> (StatusCode, Value) {
    get(service, &format!("/jobs/{id}/request")).await
}

/// Submits a job that fails.
async fn failed(service: &Service) -> JobId {
    let post = service.client.post(service.url("/pay/eu?mode=fast")).json(&json!({"card": "4711", "amount": 5}));
    let response = post.header("authorization", "Bearer secret").header("x-user-id", "7").send().await.unwrap();
    let id = response.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
    service.ended(id).await;
    id
}

#[tokio::test]
async fn request_is_redacted_by_the_rule() {
    let rule = |request: &mut StoredRequest| request.body["card"] = json!("[redacted]");
    let service = service(exposed(), rule).await;
    let id = failed(&service).await;
    let expected = json!({
        "body": {"card": "[redacted]", "amount": 5},
        "headers": [["x-user-id", "7"]],
        "path": [["shop", "eu"]],
        "query": [["mode", "fast"]],
    });
    assert_eq!(request(&service, id).await, (StatusCode::OK, expected));
    let (status, problem) = request(&service, JobId::random()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("JOB_NOT_FOUND")));
    let done = service.submit("/works", json!(1)).await;
    service.ended(done).await;
    let (status, problem) = request(&service, done).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("REQUEST_NOT_KEPT")));
    service.stop().await;
}

#[tokio::test]
async fn requests_are_not_shown_by_default() {
    let service = service(quick(), |_| ()).await;
    let id = failed(&service).await;
    let (status, problem) = request(&service, id).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("REQUEST_NOT_EXPOSED")));
    service.stop().await;
}

#[tokio::test]
async fn panicking_rule_shows_nothing() {
    let service = service(exposed(), |_| panic!("the rule panics")).await;
    let id = failed(&service).await;
    let (status, problem) = request(&service, id).await;
    assert_eq!((status, &problem["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("INTERNAL_ERROR")));
    assert!(!problem.to_string().contains("4711"));
    service.stop().await;
}

#[tokio::test]
async fn failures_are_grouped_over_http() {
    let inner = support::store();
    let fails = async |_: JobContext<Value>| Err(JobError::permanent("NO", "It always fails."));
    let builder = support::builder(&inner).endpoint(Endpoint::post("/pay/{shop}", PAY)).handler(PAY, fails);
    let endpoints = builder.build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    let service = Service::serve_app(inner, endpoints, app).await;
    let id = failed(&service).await;
    let (status, document) = get(&service, "/ops/failures?window=60").await;
    let group = &document["failures"][0];
    assert_eq!(
        (status, &group["name"], &group["code"], &group["count"]),
        (StatusCode::OK, &json!("Pay"), &json!("NO"), &json!(1))
    );
    assert_eq!(
        (&group["sampleId"], &document["scanned"], &document["complete"]),
        (&json!(id), &json!(1), &json!(true))
    );
    assert!(group["firstAt"].is_string() && group["firstAt"] == group["lastAt"]);
    let (status, problem) = get(&service, "/ops/failures?window=0").await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_QUERY")));
    service.stop().await;
}
