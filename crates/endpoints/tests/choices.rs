//! What callers choose for their jobs, and the idempotency keys that validators set.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use async_endpoints::{
    BuildError, Endpoint, JobContext, JobId, JobType, Priority, Problem, Submission, Timestamp, core::store::JobLookup,
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::{Service, store};

#[derive(serde::Deserialize)]
struct Export {
    customer: String,
    #[serde(default)]
    urgent: bool,
}

const EXPORT: JobType<Export, ()> = JobType::new("Export").delay(Duration::from_secs(5));

/// One job per customer. Urgent exports start at once.
async fn once(export: Submission<Export>) -> Result<Submission<Export>, Problem> {
    let customer = export.request().customer.clone();
    let urgent = export.request().urgent;
    let export = export.idempotency_key(customer);
    Ok(if urgent { export.delay(Duration::ZERO).priority(Priority::HIGHEST) } else { export })
}

async fn service() -> Service {
    let hour = Duration::from_secs(3600);
    let priorities = Priority::new(1)..=Priority::new(5);
    Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/exports", EXPORT).allow_delay(hour).allow_priority(priorities.clone()))
            .endpoint(Endpoint::post("/once", EXPORT).allow_delay(hour).allow_priority(priorities).validate(once))
            .endpoint(Endpoint::post("/plain", EXPORT))
    })
    .await
}

async fn send(service: &Service, path: &str, body: Value, headers: &[(&str, &str)]) -> Response {
    let request = service.client.post(service.url(path)).json(&body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

async fn accepted(service: &Service, path: &str, body: Value, headers: &[(&str, &str)]) -> Value {
    let response = send(service, path, body, headers).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json().await.unwrap()
}

fn time(job: &Value, field: &str) -> Timestamp {
    job[field].as_str().unwrap().parse().unwrap()
}

fn ada() -> Value {
    json!({ "customer": "ada" })
}

#[tokio::test]
async fn chosen_delay_replaces_that_of_the_type() {
    let service = service().await;
    let delay = async |headers: &[(&str, &str)]| {
        let job = accepted(&service, "/exports", ada(), headers).await;
        (job["status"].clone(), time(&job, "scheduledAt").since(time(&job, "createdAt")))
    };
    assert_eq!(delay(&[]).await, (json!("Scheduled"), Duration::from_secs(5)));
    assert_eq!(delay(&[("x-async-delay", "90.5")]).await, (json!("Scheduled"), Duration::from_millis(90_500)));
    let at = Timestamp::from(std::time::SystemTime::now()) + Duration::from_secs(600);
    let job = accepted(&service, "/exports", ada(), &[("x-async-not-before", &at.to_string())]).await;
    let late = time(&job, "scheduledAt").since(at);
    assert!(time(&job, "scheduledAt") >= at && late < Duration::from_secs(60), "{late:?}");
    let now = accepted(&service, "/exports", ada(), &[("x-async-not-before", "2001-01-01T00:00:00Z")]).await;
    assert_eq!(now["status"], "Queued");
    service.stop().await;
}

#[tokio::test]
async fn chosen_priority_is_that_of_the_job() {
    let service = service().await;
    assert_eq!(accepted(&service, "/exports", ada(), &[]).await["priority"], 4);
    assert_eq!(accepted(&service, "/exports", ada(), &[("x-async-priority", "5")]).await["priority"], 5);
    service.stop().await;
}

#[tokio::test]
async fn choice_out_of_bounds_stores_nothing() {
    let service = service().await;
    for (path, header, value, code) in [
        ("/exports", "X-Async-Delay", "3601", "INVALID_DELAY"),
        ("/exports", "X-Async-Not-Before", "9999-01-01T00:00:00Z", "INVALID_DELAY"),
        ("/exports", "X-Async-Priority", "6", "INVALID_PRIORITY"),
        ("/plain", "X-Async-Delay", "1", "INVALID_DELAY"),
        ("/plain", "X-Async-Not-Before", "2001-01-01T00:00:00Z", "INVALID_DELAY"),
        ("/plain", "X-Async-Priority", "4", "INVALID_PRIORITY"),
    ] {
        let refused = send(&service, path, ada(), &[(header, value)]).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{path} {header}");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], code);
        let named = format!("{header} {value:?}: ");
        assert!(problem["detail"].as_str().unwrap().starts_with(&named), "{problem}");
    }
    let stats = service.endpoints.store().stats(&Default::default()).await.unwrap();
    assert_eq!(stats.types.iter().flat_map(|kind| kind.counts).sum::<u64>(), 0);
    service.stop().await;
}

#[tokio::test]
async fn validator_overrides_the_choice() {
    let service = service().await;
    let body = json!({ "customer": "ada", "urgent": true });
    let job = accepted(&service, "/once", body, &[("x-async-delay", "60"), ("x-async-priority", "1")]).await;
    assert_eq!((&job["status"], &job["priority"]), (&json!("Queued"), &json!(9)));
    let bob = json!({ "customer": "bob" });
    let job = accepted(&service, "/once", bob, &[("x-async-delay", "60"), ("x-async-priority", "1")]).await;
    assert_eq!((&job["status"], &job["priority"]), (&json!("Scheduled"), &json!(1)));
    service.stop().await;
}

#[tokio::test]
async fn key_of_the_validator_decides_alone() {
    let service = service().await;
    let once = async |body: Value, key: Option<&str>| {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        let response = send(&service, "/once", body, &headers).await;
        let replayed = response.headers().contains_key("idempotent-replayed");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        (response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned(), replayed)
    };
    let (first, replayed) = once(ada(), None).await;
    assert!(!replayed);
    let other_body = json!({ "customer": "ada", "urgent": true });
    assert_eq!(once(other_body.clone(), None).await, (first.clone(), true), "the body does not matter");
    assert_eq!(once(ada(), Some("a-key-of-the-client")).await, (first.clone(), true), "the client's key is replaced");
    let (zoe, _) = once(json!({ "customer": "Zoë" }), None).await;
    assert_ne!(zoe, first);
    assert_eq!(once(json!({ "customer": "Zoë" }), None).await, (zoe, true), "a key may be any text");
    let malformed = send(&service, "/once", ada(), &[("idempotency-key", "a b")]).await;
    assert_eq!(malformed.status(), StatusCode::BAD_REQUEST);
    let id: JobId = first.parse().unwrap();
    assert!(matches!(service.endpoints.job(id).await.unwrap(), JobLookup::Found(_)));
    service.stop().await;
}

#[tokio::test]
async fn choices_are_in_the_document() {
    let service = service().await;
    let document =
        service.client.get(service.url("/openapi.json")).send().await.unwrap().json::<Value>().await.unwrap();
    let parameters = |path: &str| {
        let parameters = document["paths"][path]["post"]["parameters"].as_array().unwrap().clone();
        parameters.into_iter().filter(|parameter| parameter["in"] == "header").collect::<Vec<_>>()
    };
    let names: Vec<_> = parameters("/exports").iter().map(|parameter| parameter["name"].clone()).collect();
    assert_eq!(names, ["X-Async-Delay", "X-Async-Not-Before", "X-Async-Priority"]);
    let bounds = parameters("/exports")[0]["schema"].clone();
    assert_eq!(bounds, json!({ "type": "number", "minimum": 0, "maximum": 3600.0 }));
    assert!(parameters("/plain").is_empty());
    service.stop().await;
}

#[test]
fn build_rejects_choices_without_a_choice() {
    let build = |endpoint: Endpoint<Export, ()>| {
        let builder =
            support::builder(&store()).endpoint(endpoint).handler(EXPORT, async |_: JobContext<Export>| Ok(()));
        builder.build().map(drop).unwrap_err()
    };
    let error = build(Endpoint::post("/exports", EXPORT).allow_delay(Duration::ZERO));
    assert!(matches!(error, BuildError::Rule { rule: "allow_delay", .. }), "{error}");
    assert_eq!(error.to_string(), "invalid allow_delay \"0\" of Export: expected a time above 0 s");
    let empty = Priority::new(5)..=Priority::new(1);
    let error = build(Endpoint::post("/exports", EXPORT).allow_priority(empty));
    let text = "invalid allow_priority \"5..=1\" of Export: expected a range from the lowest to the highest priority";
    assert_eq!(error.to_string(), text);
}
