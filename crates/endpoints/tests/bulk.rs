//! Bulk operations and the audit trail over HTTP.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{Access, AccessLevel, Endpoint, Grant, JobContext, JobError, JobType};
use async_endpoints_core::{
    JobName, JobStore,
    store::{Claim, LeaseToken, TypeQuota, WorkerId},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{PATIENCE, Service};

const FAILING: JobType<u32, ()> = JobType::new("Failing").max_retries(0);
const WAITING: JobType<u32, ()> = JobType::new("Waiting");

async fn service(access: Access) -> Service {
    let store = support::store();
    let builder = support::builder(&store)
        .access(access)
        .endpoint(Endpoint::post("/failing", FAILING))
        .endpoint(Endpoint::post("/waiting", WAITING))
        .handler(FAILING, async |_: JobContext<u32>| Err(JobError::permanent("NO", "It always fails.")));
    let endpoints = builder.build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

async fn send(service: &Service, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = service.client.request(method, service.url(path)).json(&body).header("x-user", "ada");
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Previews and starts an operation, and waits for its end.
async fn run(service: &Service, new: Value) -> Value {
    let (status, preview) = send(service, Method::POST, "/ops/bulk/preview", new).await;
    assert_eq!(status, StatusCode::OK, "{preview}");
    started(service, &preview).await
}

/// Starts a previewed operation, and waits for its end.
async fn started(service: &Service, preview: &Value) -> Value {
    let (status, started) = send(service, Method::POST, "/ops/bulk", json!({ "preview": preview["id"] })).await;
    assert_eq!((status, &started["id"], &started["total"]), (StatusCode::ACCEPTED, &preview["id"], &preview["count"]));
    let path = format!("/ops/bulk/{}", started["id"].as_str().unwrap());
    let ended = async {
        loop {
            let (_, operation) = send(service, Method::GET, &path, Value::Null).await;
            if !operation["endedAt"].is_null() {
                return operation;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap()
}

#[tokio::test]
async fn failed_jobs_are_retried_once_and_waiting_ones_canceled() {
    let service = service(Access::loopback()).await;
    let mut failed = Vec::new();
    for n in 0..5 {
        let id = service.submit("/failing", json!(n)).await;
        service.ended(id).await;
        failed.push(id);
    }
    let retry = json!({ "action": "retry", "filter": { "status": "Failed", "code": "NO" } });
    let ended = run(&service, retry).await;
    assert_eq!((&ended["status"], &ended["changed"], &ended["total"]), (&json!("Completed"), &json!(5), &json!(5)));
    for id in failed {
        let new = service.job(id).await["retriedBy"].as_str().unwrap().parse().unwrap();
        assert_eq!(service.ended(new).await["retryOf"], json!(id));
    }
    let again = run(&service, json!({ "action": "retry", "filter": { "name": "Failing" } })).await;
    let counts = (&again["total"], &again["changed"], &again["skipped"]);
    assert_eq!(counts, (&json!(5), &json!(5), &json!(0)), "the five that were retried before are no members");
    let ended_since = |at: &str| json!({ "action": "retry", "filter": { "status": "Failed", "endedSince": at } });
    let (_, future) = send(&service, Method::POST, "/ops/bulk/preview", ended_since("2100-01-01T00:00:00Z")).await;
    let (_, past) = send(&service, Method::POST, "/ops/bulk/preview", ended_since("2000-01-01T00:00:00Z")).await;
    assert!(future["count"] == 0 && past["count"].as_u64() > Some(0), "{future} {past}");
    let waiting = service.submit("/waiting", json!(1)).await;
    let canceled =
        run(&service, json!({ "action": "cancel", "filter": { "status": "Queued", "name": "Waiting" } })).await;
    assert_eq!((&canceled["changed"], &service.job(waiting).await["status"]), (&json!(1), &json!("Canceled")));
    let (_, list) = send(&service, Method::GET, "/ops/bulk", Value::Null).await;
    let actions: Vec<&Value> = list["operations"].as_array().unwrap().iter().map(|each| &each["action"]).collect();
    assert_eq!(actions, ["cancel", "retry", "retry"], "newest first");
    let path = format!("/ops/bulk/{}", canceled["id"].as_str().unwrap());
    let stopped = send(&service, Method::DELETE, &path, Value::Null).await;
    assert_eq!(stopped, (StatusCode::OK, canceled.clone()), "it has ended");
    let repeated = send(&service, Method::POST, "/ops/bulk", json!({ "preview": canceled["id"] })).await;
    assert_eq!(repeated, (StatusCode::OK, canceled), "a repeated start gets the ended operation");
    service.stop().await;
}

#[tokio::test]
async fn job_that_started_is_not_canceled_as_queued() {
    let service = service(Access::loopback()).await;
    let [starts, waits] = [service.submit("/waiting", json!(1)).await, service.submit("/waiting", json!(2)).await];
    let queued = json!({ "action": "cancel", "filter": { "status": "Queued", "name": "Waiting" } });
    let (_, preview) = send(&service, Method::POST, "/ops/bulk/preview", queued).await;
    assert_eq!(preview["count"], 2);
    let quotas = vec![TypeQuota { name: JobName::new("Waiting").unwrap(), max: 1, timeout: PATIENCE }];
    let (worker, token) = (WorkerId(uuid::Uuid::now_v7()), LeaseToken::random());
    let claim = Claim { worker, token, quotas, max: 1, max_bytes: 1 << 20, lease: PATIENCE };
    assert_eq!(service.store.claim(&claim).await.unwrap().attempts[0].lease.job, starts);
    let ended = started(&service, &preview).await;
    assert_eq!((&ended["changed"], &ended["skipped"]), (&json!(1), &json!(1)), "{ended}");
    assert_eq!(service.job(waits).await["status"], "Canceled");
    let started = service.job(starts).await;
    assert!(started["status"] == "InProgress" && started["cancelRequestedAt"].is_null(), "{started}");
    service.stop().await;
}

#[tokio::test]
async fn invalid_bulk_requests_are_problems() {
    let service = service(Access::loopback()).await;
    let preview = |body: Value| (Method::POST, "/ops/bulk/preview".to_owned(), body);
    let unknown = "01a223eb-b302-7739-bca5-0f11dafdb5e4";
    for ((method, path, body), status, says) in [
        (preview(json!({ "action": "delete", "filter": {} })), 422, "INVALID_BULK"),
        (preview(json!({ "action": "retry" })), 422, "filter"),
        (preview(json!({ "action": "retry", "filter": [null, null] })), 422, "expected an object"),
        (preview(json!({ "action": "retry", "filter": { "state": "Failed" } })), 422, "state"),
        (preview(json!({ "action": "retry", "filter": { "status": "Queued" } })), 422, "Failed or Canceled to retry"),
        (preview(json!({ "action": "retry", "filter": { "owner": "ada" } })), 422, "/filter/owner"),
        ((Method::POST, "/ops/bulk".to_owned(), json!({ "preview": unknown })), 404, "BULK_NOT_FOUND"),
        ((Method::POST, "/ops/bulk".to_owned(), json!({ "preview": "x" })), 422, "INVALID_BULK"),
        ((Method::GET, format!("/ops/bulk/{unknown}"), Value::Null), 404, "BULK_NOT_FOUND"),
        ((Method::DELETE, "/ops/bulk/x".to_owned(), Value::Null), 404, "BULK_NOT_FOUND"),
    ] {
        let (found, problem) = send(&service, method, &path, body).await;
        assert_eq!(found.as_u16(), status, "{problem}");
        assert!(problem.to_string().contains(says), "{problem}");
    }
    let (_, preview) =
        send(&service, Method::POST, "/ops/bulk/preview", json!({ "action": "retry", "filter": {} })).await;
    let path = format!("/ops/bulk/{}", preview["id"].as_str().unwrap());
    for method in [Method::GET, Method::DELETE] {
        let (status, problem) = send(&service, method, &path, Value::Null).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("BULK_NOT_STARTED")));
    }
    let audit = service.endpoints.audit().await.unwrap();
    let newest = audit.iter().take(3).map(|entry| (entry.action.as_str(), json!(entry.target), entry.outcome.as_str()));
    let expected = [
        ("bulk.stop", preview["id"].clone(), "BULK_NOT_STARTED"),
        ("bulk.preview", preview["id"].clone(), "ok"),
        ("bulk.stop", json!("x"), "BULK_NOT_FOUND"),
    ];
    assert_eq!(newest.collect::<Vec<_>>(), expected, "a preview's target is its id");
    service.stop().await;
}

#[tokio::test]
async fn audit_names_the_operator_of_the_application() {
    let staff = |request: &async_endpoints::axum::http::request::Parts| {
        let name = request.headers.get("x-user")?.to_str().ok()?;
        Some(Grant::from(AccessLevel::Operate).named(name))
    };
    let service = service(Access::when(staff)).await;
    let id = service.submit("/waiting", json!(1)).await;
    let cancel = format!("/jobs/{id}/cancel");
    assert_eq!(send(&service, Method::POST, &cancel, Value::Null).await.0, StatusCode::OK);
    assert_eq!(send(&service, Method::POST, &cancel, Value::Null).await.0, StatusCode::CONFLICT);
    // A caller without a name is none of the operators, and is not recorded.
    assert_eq!(service.cancel(id).await.0, StatusCode::CONFLICT);
    let (_, audit) = send(&service, Method::GET, "/ops/audit", Value::Null).await;
    let entries = audit["entries"].as_array().unwrap();
    let seen: Vec<_> = entries.iter().map(|entry| (&entry["who"], &entry["target"], &entry["outcome"])).collect();
    let (who, target) = (json!("ada"), json!(id));
    assert_eq!(seen, [(&who, &target, &json!("JOB_ENDED")), (&who, &target, &json!("ok"))], "newest first");
    assert!(entries.iter().all(|entry| entry["action"] == "job.cancel" && entry["traceId"].is_string()));
    service.stop().await;
}
