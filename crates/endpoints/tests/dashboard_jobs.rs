//! What the pages about jobs offer besides the list: views, files, parts of the log, and ways back.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::Duration;

use async_endpoints::{
    Access, AsyncEndpoints, Builder, JobContext, JobError, JobId, JobType, telemetry::capture_layer,
};
use reqwest::{Client, Method, StatusCode, header, redirect::Policy};
use support::{
    Service,
    dashboard::{self, get, page, post, serve, text},
    ended, flaky_store, quick, until,
};
use tracing_subscriber::prelude::*;

const LOGS: JobType<(), ()> = JobType::new("Logs").max_retries(1);
const REFUSE: JobType<String, ()> = JobType::new("Refuse").max_retries(0);
const LATER: JobType<(), ()> = JobType::new("Later");

async fn logs(ctx: JobContext<()>) -> Result<(), JobError> {
    tracing::info!("begun");
    tracing::warn!("slow");
    tracing::error!("broken");
    if ctx.attempt() == 1 { Err(JobError::retryable("AGAIN", "once more")) } else { Ok(()) }
}

async fn refuse(ctx: JobContext<String>) -> Result<(), JobError> {
    Err(JobError::permanent("REFUSED", ctx.request().clone()))
}

fn declare(builder: Builder) -> Builder {
    builder.handler(LOGS, logs).handler(REFUSE, refuse).handled_elsewhere(LATER)
}

async fn start() -> Service {
    dashboard::start(Access::loopback(), declare).await
}

async fn refused(service: &Service, reason: &str) -> JobId {
    let id = service.endpoints.submit(REFUSE, reason.to_owned()).await.unwrap().job.id;
    ended(&service.endpoints, id).await;
    id
}

#[tokio::test]
async fn log_is_filtered_by_level_and_attempt() {
    tracing_subscriber::registry().with(capture_layer()).init();
    let service = start().await;
    let id = service.endpoints.submit(LOGS, ()).await.unwrap().job.id;
    ended(&service.endpoints, id).await;
    let path = format!("/dashboard/jobs/{id}");
    until(async || page(&service, &path).await.matches(">broken<").count() == 2).await;
    for (query, [begun, slow, broken]) in [
        ("level=trace", [2, 2, 2]),
        ("level=warn", [0, 2, 2]),
        ("level=error", [0, 0, 2]),
        ("attempt=2", [1, 1, 1]),
        ("level=warn&attempt=1", [0, 1, 1]),
    ] {
        let html = page(&service, &format!("{path}?{query}")).await;
        let lines = |message: &str| html.matches(&format!("<span class=\"message\">{message}</span>")).count();
        assert_eq!([lines("begun"), lines("slow"), lines("broken")], [begun, slow, broken], "{query}: {html}");
        let link = query.replace('&', "&amp;").replace("level=trace", "").replace("?#", "#");
        assert!(
            html.contains(&format!(
                "{id}{}{link}#logs\" aria-current=\"true\"",
                if link.is_empty() { "" } else { "?" }
            )),
            "{query}: {html}"
        );
    }
    assert!(page(&service, &format!("{path}?attempt=9")).await.contains("No line has this level and attempt."));
    for bad in ["level=loud", "attempt=x", "attempt=-1"] {
        text(get(&service, &format!("{path}?{bad}")).await, StatusCode::BAD_REQUEST).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn csv_has_all_jobs_of_the_filter() {
    let service = start().await;
    for _ in 0..201 {
        service.endpoints.submit(LATER, ()).await.unwrap();
    }
    let id = refused(&service, "=no, \"paper\"").await;
    let html = page(&service, "/dashboard/jobs?status=Failed&code=REFUSED").await;
    let link = "../dashboard/jobs.csv?status=Failed&amp;code=REFUSED";
    assert!(html.contains(&format!("href=\"{link}\"")), "{html}");
    let response = get(&service, "/dashboard/jobs.csv?status=Failed&code=REFUSED").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/csv; charset=utf-8; header=present");
    assert_eq!(response.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"jobs.csv\"");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let csv = text(response, StatusCode::OK).await;
    assert!(csv.starts_with("id,name,status,") && csv.contains("\"'=no, \"\"paper\"\"\""), "{csv}");
    assert!(csv.lines().count() == 2 && csv.contains(&id.to_string()), "{csv}");
    let all = page(&service, "/dashboard/jobs.csv").await;
    assert_eq!(all.lines().count(), 1 + 202, "all pages of the list");
    text(get(&service, "/dashboard/jobs.csv?status=x").await, StatusCode::BAD_REQUEST).await;
    service.stop().await;
}

#[tokio::test]
async fn csv_needs_access() {
    let service = dashboard::start(Access::token("secret"), declare).await;
    let html = text(get(&service, "/dashboard/jobs.csv").await, StatusCode::UNAUTHORIZED).await;
    assert!(html.contains("type=\"password\""), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn views_are_links_with_a_filter() {
    let service = start().await;
    let html = page(&service, "/dashboard/jobs?status=Failed&since=1h").await;
    let view = "href=\"../dashboard/jobs?status=Failed&amp;since=1h\" aria-current=\"true\">Failed, accepted in the last hour<";
    assert!(html.contains(view) && html.contains(">Running</a>"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn address_of_a_form_leads_to_its_page() {
    let service = start().await;
    let id = refused(&service, "no paper").await;
    let direct = Client::builder().redirect(Policy::none()).build().unwrap();
    for (form, expected) in [
        ("/types/Later/pause".to_owned(), "/types/Later".to_owned()),
        ("/types/Later/limit".to_owned(), "/types/Later".to_owned()),
        (format!("/jobs/{id}/retry"), format!("/jobs/{id}")),
        ("/health/silences".to_owned(), "/health".to_owned()),
        ("/health/test".to_owned(), "/health".to_owned()),
        ("/operations/preview".to_owned(), "/operations".to_owned()),
        ("/operations/7/stop".to_owned(), "/operations".to_owned()),
        ("/login".to_owned(), String::new()),
        ("/preferences".to_owned(), String::new()),
    ] {
        let response = direct.get(service.url(&format!("/dashboard{form}"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{form}");
        let location = response.url().join(response.headers()[header::LOCATION].to_str().unwrap()).unwrap();
        assert_eq!(location.path(), format!("/dashboard{expected}"), "{form}");
    }
    // The page that says why a form was refused has the preferences, too.
    let html = text(post(&service, "/dashboard/types/Later/pause", &[]).await, StatusCode::BAD_REQUEST).await;
    assert!(html.contains("name=\"back\" value=\"/types/Later/pause\""), "{html}");
    let form = [("theme", "dark"), ("back", "/types/Later/pause")];
    let html = text(post(&service, "/dashboard/preferences", &form).await, StatusCode::OK).await;
    assert!(html.contains("<h1>Later</h1>"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn way_back_stays_in_the_dashboard() {
    let service = start().await;
    let direct = Client::builder().redirect(Policy::none()).build().unwrap();
    for (path, back) in [("/preferences", "/../../x"), ("/login", "/%2e%2e/%2E%2e/x"), ("/preferences", "//x/..\\..")] {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("theme", "dark"), ("token", "t"), ("back", back)])
            .finish();
        let request = direct.post(service.url(&format!("/dashboard{path}"))).body(form);
        let response = request.send().await.unwrap();
        if let Some(location) = response.headers().get(header::LOCATION) {
            let location = response.url().join(location.to_str().unwrap()).unwrap();
            assert_eq!(location.path(), "/dashboard", "{back}");
        } else {
            let html = response.text().await.unwrap();
            assert!(!html.contains("%2e") && !html.contains("/x"), "{back}: {html}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_get_a_page() {
    let service = start().await;
    for path in ["/none", "/assets/dashboard-000000000000.js", "/jobs/1/2/3", "/types/Later/none", "//jobs", "/live"] {
        let response = get(&service, &format!("/dashboard{path}")).await;
        assert!(response.headers().contains_key("content-security-policy"), "{path}");
        let html = text(response, StatusCode::NOT_FOUND).await;
        assert!(html.contains("<h1>Not found</h1>") && html.contains("There is no"), "{path}: {html}");
    }
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = service.client.request(method.clone(), service.url("/dashboard/jobs")).send().await.unwrap();
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, POST");
        assert!(response.headers().contains_key("content-security-policy"), "{method}");
        let html = text(response, StatusCode::METHOD_NOT_ALLOWED).await;
        assert!(html.contains("Use GET, HEAD or POST."), "{method}: {html}");
    }
    service.stop().await;
}

#[tokio::test]
async fn slow_store_shortens_the_list_of_failures() {
    let inner = support::store();
    // Each page of 200 jobs takes up to 300 ms.
    let slow = async_endpoints_testkit::FlakyStore::new(std::sync::Arc::new(inner.clone()));
    let fast = AsyncEndpoints::builder(inner.clone()).options(quick()).access(Access::loopback());
    let fast = serve(inner.clone(), declare(fast).build().unwrap()).await;
    let mut ids = Vec::new();
    for _ in 0..2_000 {
        ids.push(fast.endpoints.submit(REFUSE, String::new()).await.unwrap().job.id);
    }
    for id in ids {
        ended(&fast.endpoints, id).await;
    }
    let html = page(&fast, "/dashboard/failures").await;
    assert!(html.contains("2\u{202f}000"), "{html}");
    let slow = AsyncEndpoints::builder(std::sync::Arc::new(slow.delays(Duration::from_millis(300))));
    let slow = declare(slow.options(quick()).access(Access::loopback())).build().unwrap();
    let slow = serve(inner, slow).await;
    let html = page(&slow, "/dashboard/failures").await;
    assert!(html.contains("failed jobs were read. Earlier ones of this period are missing."), "{html}");
    assert!(html.contains("+</td><td><span"), "neither the number nor the first failure is known: {html}");
    slow.stop().await;
    fast.stop().await;
}

#[tokio::test]
async fn stream_says_that_the_store_stopped_and_started() {
    let (inner, flaky) = flaky_store();
    let builder = AsyncEndpoints::builder(flaky.clone()).options(quick()).access(Access::loopback());
    let service = serve(inner, declare(builder).build().unwrap()).await;
    let mut stream = get(&service, "/dashboard/live?at=/failures").await;
    let mut next = async || {
        let chunk = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.expect("an event in 5 s");
        let event = String::from_utf8(chunk.unwrap().expect("the stream goes on").to_vec()).unwrap();
        serde_json::from_str::<serde_json::Value>(event.trim().strip_prefix("data: ").unwrap()).unwrap()
    };
    let first = next().await;
    assert!(first["error"].is_null() && first["regions"].as_array().is_some_and(|all| !all.is_empty()), "{first}");
    flaky.outage(true);
    let begun = std::time::Instant::now();
    let mut event = next().await;
    while event["error"].is_null() {
        event = next().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    flaky.outage(false);
    while !event["error"].is_null() {
        event = next().await;
    }
    assert_eq!(event["tag"], first["tag"]);
    service.stop().await;
}
