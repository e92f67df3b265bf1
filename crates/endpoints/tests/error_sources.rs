//! The cause of a failed attempt: operators see it on every route, callers on none.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{Access, Endpoint, JobContext, JobError, JobId, JobType};
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use support::{Service, ended};

const FAILING: JobType<(), ()> = JobType::new("Failing").max_retries(1);
const PANICKING: JobType<(), ()> = JobType::new("Panicking").max_retries(0);
const BLOCKING: JobType<(), ()> = JobType::new("Blocking").max_retries(0);
const CODED: JobType<(), ()> = JobType::new("Coded").max_retries(0);

/// An error with a source of its own.
#[derive(Debug, thiserror::Error)]
#[error("cannot save the report")]
struct Unsaved(#[source] std::io::Error);

fn unsaved() -> Unsaved {
    Unsaved(std::io::Error::other("secret disk full"))
}

async fn failing(_: JobContext<()>) -> Result<(), JobError> {
    Err(unsaved())?
}

async fn panicking(_: JobContext<()>) -> Result<(), JobError> {
    panic!("secret paper jam")
}

fn blocking(_: JobContext<()>) -> Result<(), JobError> {
    panic!("secret paper jam")
}

async fn coded(_: JobContext<()>) -> Result<(), JobError> {
    Err(JobError::permanent("UNSAVED", "The report cannot be saved.").with_source(unsaved()))
}

async fn service() -> Service {
    Service::start(|builder| {
        builder
            .access(Access::token("operator"))
            .endpoint(Endpoint::post("/failing", FAILING))
            .handler(FAILING, failing)
            .endpoint(Endpoint::post("/panicking", PANICKING))
            .handler(PANICKING, panicking)
            .endpoint(Endpoint::post("/blocking", BLOCKING))
            .blocking_handler(BLOCKING, blocking)
            .endpoint(Endpoint::post("/coded", CODED))
            .handler(CODED, coded)
    })
    .await
}

/// The body of a response to an operator.
async fn operator(service: &Service, path: &str) -> String {
    let request = service.client.get(service.url(path)).header(AUTHORIZATION, "Bearer operator");
    request.send().await.unwrap().text().await.unwrap()
}

async fn error_of(service: &Service, id: JobId) -> Value {
    ended(&service.endpoints, id).await;
    let job: Value = serde_json::from_str(&operator(service, &format!("/jobs/{id}")).await).unwrap();
    job["error"].clone()
}

#[tokio::test]
async fn operators_see_sources_on_every_route() {
    let service = service().await;
    let id = service.submit("/failing", Value::Null).await;
    let error = error_of(&service, id).await;
    assert_eq!(
        (&error["detail"], &error["sources"]),
        (&Value::Null, &json!(["cannot save the report", "secret disk full"]))
    );
    for path in ["", "?wait=1", "/result", "/events"] {
        let text = operator(&service, &format!("/jobs/{id}{path}")).await;
        let expected = if path == "/result" { 1 } else { 3 };
        assert_eq!(text.matches("secret disk full").count(), expected, "{path}: the error, and those of two attempts");
    }
    assert!(operator(&service, "/jobs").await.contains("secret disk full"));
    service.stop().await;
}

#[tokio::test]
async fn callers_never_see_sources() {
    let service = service().await;
    for path in ["/failing", "/panicking", "/blocking", "/coded"] {
        let url = service.url(path);
        let key = |request: reqwest::RequestBuilder| request.header("idempotency-key", "k").json(&Value::Null);
        let waited = key(service.client.post(&url)).header("prefer", "wait=30").send().await.unwrap();
        let waited = waited.text().await.unwrap();
        let id = serde_json::from_str::<Value>(&waited).unwrap()["id"].as_str().unwrap().to_owned();
        let mut texts = vec![waited, key(service.client.post(&url)).send().await.unwrap().text().await.unwrap()];
        for part in ["", "?wait=1", "/result", "/events"] {
            let response = service.client.get(service.url(&format!("/jobs/{id}{part}"))).send().await.unwrap();
            texts.push(response.text().await.unwrap());
        }
        for text in texts {
            assert!(text.contains(r#""code":""#), "{path}: {text}");
            assert!(!text.contains("secret") && !text.contains("sources"), "{path}: {text}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn panic_has_message_and_location() {
    let service = service().await;
    for path in ["/panicking", "/blocking"] {
        let id = service.submit(path, Value::Null).await;
        let error = error_of(&service, id).await;
        assert_eq!((&error["code"], &error["sources"][0]), (&json!("HANDLER_PANIC"), &json!("secret paper jam")));
        let location = error["sources"][1].as_str().unwrap();
        assert!(location.starts_with("crates/endpoints/tests/error_sources.rs:"), "{location}");
    }
    service.stop().await;
}

#[tokio::test]
async fn attached_source_keeps_code_and_detail() {
    let service = service().await;
    let id = service.submit("/coded", Value::Null).await;
    let error = error_of(&service, id).await;
    assert_eq!((&error["code"], &error["detail"]), (&json!("UNSAVED"), &json!("The report cannot be saved.")));
    assert_eq!(error["sources"], json!(["cannot save the report", "secret disk full"]));
    service.stop().await;
}
