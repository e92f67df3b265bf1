//! Submitting jobs, reading them, and the problem responses of both.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobId, JobType, Options};
use async_endpoints_testkit::FlakyStore;
use reqwest::{Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use support::{Service, quick, store};
use tokio::sync::Semaphore;

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    items: Vec<u32>,
}

const ORDER: JobType<Order, u32> = JobType::new("Order").max_queue_size(70);
const OTHER: JobType<Order, u32> = JobType::new("Other");
const REST: JobType<Value, Value> = JobType::new("Rest").retention(Duration::from_millis(400));

/// Accepts all three types; runs only `Rest`.
async fn service() -> Service {
    Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/orders/{shop}", ORDER))
            .endpoint(Endpoint::put("/orders/{shop}", ORDER))
            .endpoint(Endpoint::post("/others", OTHER))
            .endpoint(Endpoint::post("/rest", REST))
            .handler(REST, async |ctx: JobContext<Value>| Ok(ctx.request().clone()))
    })
    .await
}

async fn body(response: Response) -> Value {
    response.json().await.unwrap()
}

/// Checks that a response is a well-formed problem object; returns its status, code and detail.
async fn problem(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let retries = response.headers().contains_key("retry-after");
    assert_eq!(retries, status == 503, "Retry-After goes with 503");
    let body = body(response).await;
    let mut members: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.remove("errors"), body["code"] == "INVALID_REQUEST", "{body}");
    assert_eq!(members, BTreeSet::from(["type", "title", "status", "detail", "code", "traceId"]));
    assert_eq!(body["status"], status);
    let text = |member: &str| body[member].as_str().unwrap().to_owned();
    assert_eq!(text("type"), format!("urn:async-endpoints:problem:{}", text("code")));
    (status, text("code"), text("detail"))
}

#[tokio::test]
async fn submit_returns_202_with_all_headers_and_fields() {
    let service = service().await;
    let response = service.post("/orders/berlin?express=1", json!({"items": [1, 2]})).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let headers = response.headers().clone();
    let job = body(response).await;
    let id = job["id"].as_str().unwrap();
    for name in ["location", "operation-location"] {
        assert_eq!(headers[name], format!("/jobs/{id}"));
    }
    assert_eq!(headers["x-async-job-id"], id);
    assert_eq!(headers["vary"], "Prefer");
    assert_eq!(headers["etag"], "\"1\"");
    assert!(headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    assert!(!headers.contains_key("idempotent-replayed"));
    let fields = "id name status attempt retryCount lossCount maxRetries priority version createdAt scheduledAt startedAt \
                  completedAt lastUpdatedAt expiresAt cancelRequestedAt progress result error attempts waiting retryOf \
                  retriedBy traceId links";
    let found: BTreeSet<&str> = job.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, fields.split(' ').collect());
    assert_eq!(job["status"], "Queued");
    assert_eq!(job["links"]["cancel"], format!("/jobs/{id}/cancel"));
    assert_eq!(service.job(id.parse().unwrap()).await, job, "the response equals a later read");
    service.stop().await;
}

#[tokio::test]
async fn invalid_request_is_refused_and_not_stored() {
    let service = service().await;
    let url = service.url("/orders/berlin");
    let post = |kind: &'static str, body: String| service.client.post(&url).header("content-type", kind).body(body);
    let good = || json!({"items": [1]}).to_string();
    let deep = |n: usize| format!(r#"{{"items":[],"x":{}{}}}"#, "[".repeat(n - 1), "]".repeat(n - 1));
    let large = format!(r#"{{"items":[{}1]}}"#, "1,".repeat(600_000));
    let cases = [
        (post("application/json", "{\"items\":".to_owned()), 400, "INVALID_JSON", "EOF"),
        (post("application/json", "{} {}".to_owned()), 400, "INVALID_JSON", "trailing"),
        (post("application/json", deep(129)), 400, "INVALID_JSON", "128"),
        (post("text/plain", good()), 415, "UNSUPPORTED_MEDIA_TYPE", "text/plain"),
        (service.client.post(&url).body(good()), 415, "UNSUPPORTED_MEDIA_TYPE", "none"),
        (post("application/json", good()).header("content-encoding", "gzip"), 415, "UNSUPPORTED_MEDIA_TYPE", "gzip"),
        (
            post("application/json", good()).header("content-encoding", "identity").header("content-encoding", "gzip"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "gzip",
        ),
        (post("application/json", good()).header("content-type", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE", "json"),
        (post("application/json", format!(r#"{{"items":"{}"}}"#, "x".repeat(9000))), 422, "INVALID_REQUEST", "items: "),
        (post("application/json", large), 413, "BODY_TOO_LARGE", "1048576"),
        (post("application/json", r#"{"items":[1,"two"]}"#.to_owned()), 422, "INVALID_REQUEST", "items[1]: "),
        (service.client.post(&url), 422, "INVALID_REQUEST", "null"),
        (post("application/json", "[[1]]".to_owned()), 422, "INVALID_REQUEST", "an object"),
        (post("application/json", "[[1]".to_owned()), 400, "INVALID_JSON", "EOF"),
        (post("application/json", good()).header("idempotency-key", "a b"), 400, "INVALID_IDEMPOTENCY_KEY", "255"),
        (post("application/json", good()).header("x-async-request-id", "7"), 400, "INVALID_REQUEST_ID", "UUID"),
        (service.client.delete(&url), 405, "METHOD_NOT_ALLOWED", "DELETE"),
        (service.client.get(service.url("/jobs/not-a-uuid")), 404, "JOB_NOT_FOUND", "no job"),
        (service.client.get(service.url(&format!("/jobs/{}", JobId::random()))), 404, "JOB_NOT_FOUND", "no job"),
        (service.client.post(service.url("/jobs/7/cancel")), 404, "JOB_NOT_FOUND", "no job"),
        (service.client.delete(service.url("/jobs/7")), 405, "METHOD_NOT_ALLOWED", "DELETE"),
        (service.client.put(service.url("/jobs/7/resutl")), 404, "ROUTE_NOT_FOUND", "\"/jobs/7/resutl\""),
    ];
    for (request, status, code, said) in cases {
        let response = request.send().await.unwrap();
        let cached = response.headers().get("cache-control").cloned();
        let is_unrouted = ["METHOD_NOT_ALLOWED", "ROUTE_NOT_FOUND"].contains(&code);
        assert_eq!(cached.is_some_and(|cached| cached == "no-store"), is_unrouted, "{code}");
        let (found_status, found_code, detail) = problem(response).await;
        assert_eq!((found_status, found_code.as_str()), (status, code));
        assert!(detail.contains(said) && detail.len() <= 4096, "{detail}");
    }
    assert!(service.endpoints.store().stats(&Default::default()).await.unwrap().types.is_empty());
    for accepted in [
        post("application/vnd.order+json; charset=utf-8", good()),
        post("Application/JSON", good()).header("content-encoding", "Identity"),
        post("application/json", deep(128)),
    ] {
        assert_eq!(accepted.send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    service.stop().await;
}

#[tokio::test]
async fn concurrent_submits_with_one_key_make_one_job() {
    let service = service().await;
    let submits = (0..64).map(|_| {
        let request = service.client.post(service.url("/orders/berlin")).header("idempotency-key", "\"k-1\"");
        request.json(&json!({"items": [1]})).send()
    });
    let mut ids = BTreeSet::new();
    let mut replayed = 0;
    for response in futures_util::future::join_all(submits).await {
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        replayed += u32::from(response.headers().get("idempotent-replayed").is_some_and(|value| value == "true"));
        ids.insert(body(response).await["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((ids.len(), replayed), (1, 63));
    service.stop().await;
}

#[tokio::test]
async fn key_takes_precedence_over_request_id() {
    let service = service().await;
    let send = async |path: &str, key: Option<&str>, id: Option<JobId>, items: &[u32]| {
        let mut request = service.client.post(service.url(path)).json(&json!({"items": items}));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(id) = id {
            request = request.header("X-Async-Request-Id", id.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let body = body(response).await;
        (status, replayed, body["id"].as_str().or(body["code"].as_str()).unwrap().to_owned())
    };
    let (a, b) = (JobId::random(), JobId::random());
    let ok = |replayed: bool, id: JobId| (202, replayed, id.to_string());
    let conflict = (422, false, "IDEMPOTENCY_CONFLICT".to_owned());
    // Only an id.
    assert_eq!(send("/orders/x", None, Some(a), &[1]).await, ok(false, a));
    assert_eq!(send("/orders/x", None, Some(a), &[1]).await, ok(true, a));
    assert_eq!(send("/orders/x", None, Some(a), &[2]).await, conflict, "another body");
    assert_eq!(send("/orders/y", None, Some(a), &[1]).await, conflict, "another path parameter");
    assert_eq!(send("/orders/x?q=1", None, Some(a), &[1]).await, conflict, "another query");
    assert_eq!(send("/others", None, Some(a), &[1]).await, conflict, "another job type");
    // Key and id: the key decides, the id is used for a new job.
    assert_eq!(send("/orders/x", Some("k"), Some(b), &[1]).await, ok(false, b));
    assert_eq!(send("/orders/x", Some("k"), Some(a), &[1]).await, ok(true, b));
    assert_eq!(send("/orders/x", Some("k"), None, &[2]).await, conflict);
    assert_eq!(send("/orders/x", Some("new"), Some(a), &[1]).await, conflict, "a new key with a taken id");
    // Keys of different job types are independent.
    let (status, replayed, other) = send("/others", Some("k"), None, &[1]).await;
    assert_eq!((status, replayed), (202, false));
    assert_ne!(other, b.to_string());
    service.stop().await;
}

#[tokio::test]
async fn full_queue_refuses_new_jobs_but_replays() {
    let service = service().await;
    let keyed =
        || service.client.post(service.url("/orders/x")).json(&json!({"items": []})).header("idempotency-key", "first");
    assert_eq!(keyed().send().await.unwrap().status(), StatusCode::ACCEPTED);
    for _ in 1..70 {
        service.submit("/orders/x", json!({"items": []})).await;
    }
    let (status, code, _) = problem(service.post("/orders/x", json!({"items": []})).await).await;
    assert_eq!((status, code.as_str()), (503, "QUEUE_FULL"));
    assert_eq!(keyed().send().await.unwrap().status(), StatusCode::ACCEPTED);
    service.submit("/others", json!({"items": []})).await;
    service.stop().await;
}

#[tokio::test]
async fn read_is_304_if_unchanged_then_410_then_404() {
    let service = service().await;
    let id = service.submit("/rest", json!({"n": 1})).await;
    let url = service.url(&format!("/jobs/{id}"));
    let job = service.endpoints.wait(id, support::PATIENCE).await.unwrap();
    let async_endpoints::JobLookup::Found(job) = job else { panic!("{job:?}") };
    let get = |known: String| service.client.get(&url).header("if-none-match", known).send();
    let unchanged = get(format!("W/\"7\", \"{}\"", job.version)).await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged.headers()["etag"], format!("\"{}\"", job.version));
    assert_eq!(unchanged.headers()["cache-control"], "private, no-cache");
    let changed = get("\"0\"".to_owned()).await.unwrap();
    assert_eq!((changed.status(), changed.headers().get("retry-after")), (StatusCode::OK, None));
    // Each status lasts 400 ms, by the store's clock.
    let mut seen = vec![200];
    let gone = async {
        while *seen.last().unwrap() != 404 {
            let status = service.client.get(&url).send().await.unwrap().status().as_u16();
            if seen.last() != Some(&status) {
                seen.push(status);
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, gone).await.unwrap();
    assert_eq!(seen, [200, 410, 404]);
    let replay = service.client.post(service.url("/rest")).json(&json!({"n": 2})).header("idempotency-key", "once");
    let first = body(replay.try_clone().unwrap().send().await.unwrap()).await["id"].as_str().unwrap().parse().unwrap();
    service.endpoints.wait(first, support::PATIENCE).await.unwrap();
    let expired = async {
        loop {
            let response = replay.try_clone().unwrap().send().await.unwrap();
            if response.status() != 202 {
                return problem(response).await;
            }
        }
    };
    let (status, code, _) = tokio::time::timeout(support::PATIENCE, expired).await.unwrap();
    assert_eq!((status, code.as_str()), (410, "JOB_EXPIRED"), "the job does not run again");
    let (status, code, _) = problem(service.client.post(format!("{url}/cancel")).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (404, "JOB_NOT_FOUND"));
    service.stop().await;
}

#[tokio::test]
async fn store_outage_is_503_and_keyed_repeat_is_safe() {
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let endpoints = AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .endpoint(Endpoint::post("/orders/{shop}", ORDER))
        .build()
        .unwrap();
    let service = Service::serve(inner, endpoints).await;
    let id = service.submit("/orders/x", json!({"items": []})).await;
    flaky.outage(true);
    let submit = || {
        let request = service.client.post(service.url("/orders/x")).json(&json!({"items": [1]}));
        request.header("idempotency-key", "k").send()
    };
    for response in [
        submit().await,
        service.client.get(service.url(&format!("/jobs/{id}"))).send().await,
        service.client.post(service.url(&format!("/jobs/{id}/cancel"))).send().await,
    ] {
        let (status, code, _) = problem(response.unwrap()).await;
        assert_eq!((status, code.as_str()), (503, "STORE_UNAVAILABLE"));
    }
    flaky.outage(false);
    flaky.fail_next(async_endpoints::core::store::StoreOperation::Insert, async_endpoints_testkit::When::After);
    assert_eq!(submit().await.unwrap().status(), 503, "the job is stored, but the reply was lost");
    let replay = submit().await.unwrap();
    assert_eq!((replay.status().as_u16(), replay.headers()["idempotent-replayed"].to_str().unwrap()), (202, "true"));
    service.stop().await;
}

#[tokio::test]
async fn drain_refuses_submits_but_serves_reads() {
    const HELD: JobType<(), ()> = JobType::new("Held");
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = gate.clone();
    let service = Service::start(|builder| {
        builder
            .options(Options { shutdown: Duration::from_secs(20), ..quick() })
            .endpoint(Endpoint::post("/held", HELD))
            .handler(HELD, move |_: JobContext<()>| {
                let gate = handler_gate.clone();
                async move {
                    gate.acquire().await?.forget();
                    Ok(())
                }
            })
    })
    .await;
    let id = service.submit("/held", Value::Null).await;
    let started = async {
        while service.job(id).await["status"] != "InProgress" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, started).await.unwrap();
    service.endpoints.shutdown();
    for path in ["/held", &format!("/jobs/{id}/retry")] {
        let refused = service.post(path, Value::Null).await;
        assert_eq!(refused.headers()["connection"], "close", "the client must reconnect");
        let (status, code, _) = problem(refused).await;
        assert_eq!((status, code.as_str()), (503, "SHUTTING_DOWN"));
    }
    assert_eq!(service.job(id).await["status"], "InProgress", "reads work during the drain");
    gate.add_permits(1);
    let endpoints = service.endpoints.clone();
    service.stop().await;
    assert_eq!(support::found(&endpoints, id).await.status.as_str(), "Completed", "the running job ended");
}

#[tokio::test]
async fn problem_has_trace_id_of_request() {
    let service = service().await;
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    let refused = service.client.post(service.url("/others")).headers(headers).send().await.unwrap();
    assert_eq!(body(refused).await["traceId"], "0af7651916cd43dd8448eb211c80319c");
    service.stop().await;
}
