//! Authorization on every route: access policy and owners.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, JobError, JobId, JobType, Options, Owner, axum::http::request::Parts,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use support::Service;

const WAITING: JobType<(), ()> = JobType::new("Waiting");
const FAILING: JobType<(), ()> = JobType::new("Failing").max_retries(0);

/// A route and its authorization.
struct Known {
    method: Method,
    path: &'static str,
    for_operators: bool,
    of_a_job: bool,
}

/// Every job route and declared endpoint. A missing route fails the tests below.
fn known() -> Vec<Known> {
    let route = |method, path, for_operators, of_a_job| Known { method, path, for_operators, of_a_job };
    vec![
        route(Method::GET, "/jobs", true, false),
        route(Method::GET, "/jobs/{id}", false, true),
        route(Method::GET, "/jobs/{id}/result", false, true),
        route(Method::GET, "/jobs/{id}/events", false, true),
        route(Method::GET, "/jobs/{id}/logs", true, true),
        route(Method::GET, "/jobs/{id}/explain", false, true),
        route(Method::GET, "/jobs/{id}/request", true, true),
        route(Method::POST, "/jobs/{id}/cancel", false, true),
        route(Method::POST, "/jobs/{id}/retry", true, true),
        route(Method::GET, "/openapi.json", false, false),
        route(Method::POST, "/waiting", false, false),
        route(Method::POST, "/failing", false, false),
    ]
}

fn owner(request: &Parts) -> Owner {
    match request.headers.get("x-user").and_then(|user| user.to_str().ok()) {
        Some("support") => Owner::All,
        user => user.into(),
    }
}

async fn service(access: Access) -> Service {
    service_with(access, Options { expose_requests: true, ..Options::default() }).await
}

async fn service_with(access: Access, options: Options) -> Service {
    Service::start(|builder| {
        builder
            .options(options)
            .access(access)
            .owner(owner)
            .endpoint(Endpoint::post("/waiting", WAITING))
            .endpoint(Endpoint::post("/failing", FAILING))
            .handler(FAILING, async |_: JobContext<()>| Err(JobError::permanent("NO", "It always fails.").status(409)))
    })
    .await
}

/// The routes in the OpenAPI document, each checked to be known.
async fn all(service: &Service) -> Vec<Known> {
    let document: Value = service.client.get(service.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    let mut known = known();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let place = known.iter().position(|k| k.path == path && k.method.as_str() == method.to_uppercase());
            let place = place.unwrap_or_else(|| panic!("{method} {path} is not in known()"));
            found.push(known.remove(place));
        }
    }
    assert!(known.is_empty(), "{:?} are not in the document", known.iter().map(|k| k.path).collect::<Vec<_>>());
    found
}

fn call(service: &Service, route: &Known, id: JobId) -> RequestBuilder {
    service.client.request(route.method.clone(), service.url(&route.path.replace("{id}", &id.to_string())))
}

async fn submit(service: &Service, path: &str, user: &str) -> JobId {
    let response = service.client.post(service.url(path)).header("x-user", user).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap()
}

async fn failed(service: &Service, user: &str) -> JobId {
    let id = submit(service, "/failing", user).await;
    support::ended(&service.endpoints, id).await;
    id
}

#[tokio::test]
async fn operator_routes_without_token_are_401() {
    let service = service(Access::token("letmein")).await;
    let id = failed(&service, "support").await;
    for route in all(&service).await {
        for wrong in [None, Some("Bearer wrong"), Some("Basic letmein")] {
            let mut request = call(&service, &route, id);
            if let Some(wrong) = wrong {
                request = request.header("authorization", wrong);
            }
            let response = request.send().await.unwrap();
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, route.for_operators, "{} {}: {}", route.method, route.path, response.status());
            assert_eq!(response.headers().get("www-authenticate").is_some(), refused);
        }
        let granted = call(&service, &route, id).bearer_auth("letmein").header("x-user", "support");
        let status = granted.send().await.unwrap().status();
        assert!(status.is_success() || status == StatusCode::CONFLICT, "{} {}: {status}", route.method, route.path);
    }
    service.stop().await;
}

#[tokio::test]
async fn loopback_access_refuses_proxies_and_other_hosts() {
    let service = service(Access::loopback()).await;
    let id = failed(&service, "support").await;
    for route in all(&service).await.iter().filter(|route| route.for_operators) {
        for (name, value) in [("host", "jobs.example.com"), ("x-forwarded-for", "10.0.0.1"), ("via", "1.1 proxy")] {
            let response = call(&service, route, id).header(name, value).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{} {name}", route.path);
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "FORBIDDEN");
        }
        let other_site = call(&service, route, id).header("sec-fetch-site", "cross-site").send().await.unwrap();
        assert_eq!(other_site.status() == StatusCode::FORBIDDEN, route.method == Method::POST, "{}", route.path);
        let here = call(&service, route, id).header("x-user", "support").send().await.unwrap();
        assert!(here.status().is_success(), "{}: {}", route.path, here.status());
    }
    service.stop().await;
}

#[tokio::test]
async fn operator_routes_are_closed_by_default() {
    let store = support::store();
    let endpoints = AsyncEndpoints::builder(store.clone()).build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    let service = Service::serve_app(store, endpoints, app).await;
    for (method, path) in [
        (Method::GET, "/jobs"),
        (Method::GET, "/metrics/jobs"),
        (Method::POST, "/jobs/7/retry"),
        (Method::HEAD, "/jobs"),
    ] {
        let response = service.client.request(method.clone(), service.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {path}");
        if method != Method::HEAD {
            let problem: Value = response.json().await.unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(".access("), "{problem}");
        }
    }
    assert_eq!(service.client.get(service.url("/openapi.json")).send().await.unwrap().status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn cross_site_cancel_with_cookies_is_refused() {
    let service = service(Access::closed()).await;
    let id = submit(&service, "/waiting", "support").await;
    let send = async |method: Method, path: &str, cookie: bool, site: &str| {
        let request = service.client.request(method, service.url(&format!("/jobs/{id}{path}")));
        let request = request.header("sec-fetch-site", site.to_owned()).header("x-user", "support");
        let request = if cookie { request.header("cookie", "session=1") } else { request };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["code"].clone())
    };
    assert_eq!(send(Method::POST, "/cancel", true, "cross-site").await, (403, json!("CROSS_SITE_REQUEST")));
    assert_eq!(send(Method::GET, "", true, "cross-site").await.0, 200, "a read");
    assert_eq!(support::found(&service.endpoints, id).await.status.as_str(), "Queued");
    assert_eq!(send(Method::POST, "/cancel", true, "same-origin").await.0, 200);
    let id = submit(&service, "/waiting", "support").await;
    let uncookied = service.client.post(service.url(&format!("/jobs/{id}/cancel"))).header("x-user", "support");
    assert_eq!(uncookied.header("sec-fetch-site", "cross-site").send().await.unwrap().status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn job_of_other_owner_is_404() {
    let service = service_with(Access::closed(), Options { expose_logs: true, ..Options::default() }).await;
    let (waiting, failed) = (submit(&service, "/waiting", "ada").await, failed(&service, "ada").await);
    let before = service.endpoints.job(waiting).await.unwrap();
    // Stored requests are for operators alone.
    let is_for_callers = |route: &&Known| route.of_a_job && !route.path.ends_with("/request");
    for route in all(&service).await.iter().filter(is_for_callers) {
        let ask = async |id: JobId, user: Option<&str>| {
            // In one trace, so that the problems have the same `traceId`.
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let mut request = call(&service, route, id).header("prefer", "wait=50").header("traceparent", parent);
            if let Some(user) = user {
                request = request.header("x-user", user);
            }
            let answer = async {
                let response = request.send().await.unwrap();
                let status = response.status();
                let mut problem = response.json::<Value>().await.unwrap();
                // Each request has a trace of its own.
                problem["traceId"].take();
                (status, problem)
            };
            tokio::time::timeout(Duration::from_secs(20), answer).await.expect("the request is not held")
        };
        let unknown = ask(JobId::random(), Some("bob")).await;
        assert_eq!((unknown.0, &unknown.1["code"]), (StatusCode::NOT_FOUND, &json!("JOB_NOT_FOUND")));
        for id in [waiting, failed] {
            assert_eq!(ask(id, Some("bob")).await, unknown, "{} {}", route.method, route.path);
            // A caller without owner may not retry any job.
            let none = ask(id, None).await;
            assert!(none == unknown || route.path.ends_with("/retry") && none.0 == 403, "{} {none:?}", route.path);
        }
    }
    assert_eq!(service.endpoints.job(waiting).await.unwrap(), before, "the job is unchanged");
    service.stop().await;
}

#[tokio::test]
async fn owner_lists_and_retries_own_jobs() {
    let service = service(Access::token("letmein")).await;
    let (_, failed) = (submit(&service, "/waiting", "ada").await, failed(&service, "ada").await);
    let list = async |user: &str| {
        let request = service.client.get(service.url("/jobs")).header("x-user", user.to_owned());
        request.send().await.unwrap().json::<Value>().await.unwrap()["jobs"].as_array().map(Vec::len)
    };
    assert_eq!((list("ada").await, list("bob").await, list("support").await), (Some(2), Some(0), None));
    let retry = service.client.post(service.url(&format!("/jobs/{failed}/retry"))).header("x-user", "ada");
    let cross_site = retry.try_clone().unwrap().header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(cross_site.status(), StatusCode::FORBIDDEN);
    assert_eq!(retry.send().await.unwrap().status(), StatusCode::ACCEPTED);
    service.stop().await;
}

#[tokio::test]
async fn operator_handles_jobs_of_all_owners() {
    let service = service(Access::token("letmein")).await;
    let (waiting, failed) = (submit(&service, "/waiting", "ada").await, failed(&service, "ada").await);
    let jobs = service.client.get(service.url("/jobs")).bearer_auth("letmein").header("x-user", "bob");
    let jobs: Value = jobs.send().await.unwrap().json().await.unwrap();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(2));
    for route in all(&service).await.iter().filter(|route| route.of_a_job && !route.path.ends_with("/events")) {
        let id = if route.path.ends_with("/cancel") { waiting } else { failed };
        let request = call(&service, route, id).bearer_auth("letmein").header("x-user", "bob");
        let response = request.send().await.unwrap();
        // The result of a failed job has the error's status.
        let expected = if route.path.ends_with("/result") { StatusCode::CONFLICT } else { response.status() };
        assert!(response.status() == expected && response.status() != StatusCode::NOT_FOUND, "{}", route.path);
        assert!(response.headers().get_all("vary").iter().any(|vary| vary == "Authorization"), "{}", route.path);
    }
    assert_eq!(support::found(&service.endpoints, waiting).await.status.as_str(), "Canceled");
    service.stop().await;
}

#[tokio::test]
async fn keys_and_ids_are_scoped_to_owner() {
    let service = service(Access::loopback()).await;
    let send = async |user: &str, header: &'static str, value: String| {
        let request = service.client.post(service.url("/waiting")).header("x-user", user).header(header, value);
        let response = request.send().await.unwrap();
        let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotent-replayed"));
        let body: Value = response.json().await.unwrap();
        (status, replayed, body["id"].as_str().or(body["code"].as_str()).unwrap().to_owned())
    };
    let key = "k-1".to_owned();
    let (status, replayed, adas) = send("ada", "idempotency-key", key.clone()).await;
    assert_eq!((status, replayed), (202, false));
    assert_eq!(send("ada", "idempotency-key", key.clone()).await, (202, true, adas.clone()));
    let (status, replayed, bobs) = send("bob", "idempotency-key", key).await;
    assert_eq!((status, replayed), (202, false));
    assert_ne!(bobs, adas);
    let conflict = (422, false, "IDEMPOTENCY_CONFLICT".to_owned());
    assert_eq!(
        send("bob", "x-async-request-id", adas.clone()).await,
        conflict,
        "the response reveals nothing of the job"
    );
    assert!(send("ada", "x-async-request-id", adas.clone()).await.1);
    service.stop().await;
}

#[tokio::test]
async fn access_predicate_decides() {
    let service = service(Access::when(|request| request.headers.contains_key("x-staff"))).await;
    let list = || service.client.get(service.url("/jobs"));
    assert_eq!(list().send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(list().header("x-staff", "1").send().await.unwrap().status(), StatusCode::OK);
    service.stop().await;
}
