//! The pages about job types over HTTP, and their pauses and limits.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    Access, AccessLevel, AsyncEndpoints, Builder, JobContext, JobError, JobStatus, JobType, TypeState,
};
use reqwest::{Client, StatusCode, redirect::Policy};
use serde_json::json;
use support::{
    Service,
    dashboard::{self, get, page, post, serve, text},
    flaky_store, quick, until,
};

const ECHO: JobType<(), ()> = JobType::new("Echo").concurrency(3);
/// A text that would become markup without escaping.
const HOSTILE: &str = "\"><script>alert(1)</script>";

async fn echo(_: JobContext<()>) -> Result<(), JobError> {
    Ok(())
}

fn declare(builder: Builder) -> Builder {
    builder.handler(ECHO, echo)
}

async fn start(access: Access) -> Service {
    dashboard::start(access, declare).await
}

async fn done(service: &Service, path: &str, form: &[(&str, &str)]) -> String {
    text(post(service, path, form).await, StatusCode::OK).await
}

async fn echo_type(service: &Service) -> TypeState {
    service.endpoints.types().await.unwrap().into_iter().find(|state| state.name.as_str() == "Echo").unwrap()
}

#[tokio::test]
async fn types_have_a_page_each() {
    let service = start(Access::loopback()).await;
    let id = service.endpoints.submit(ECHO, ()).await.unwrap().job.id;
    support::ended(&service.endpoints, id).await;
    let html = page(&service, "/dashboard/types").await;
    assert!(html.contains("id=\"type-Echo\"") && html.contains("dashboard/types/Echo\""), "{html}");
    until(async || page(&service, "/dashboard/types/Echo").await.contains("0 of 3")).await;
    let html = page(&service, "/dashboard/types/Echo").await;
    assert!(html.contains("New jobs are started.") && html.contains("<svg"), "{html}");
    assert!(html.contains("dashboard/jobs?status=Completed&amp;name=Echo\""), "{html}");
    for unknown in ["None", "a%20b", "%3Cscript%3E"] {
        text(get(&service, &format!("/dashboard/types/{unknown}")).await, StatusCode::NOT_FOUND).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn type_is_paused_and_resumed() {
    let service = start(Access::loopback()).await;
    let paused = done(&service, "/dashboard/types/Echo/pause", &[("reason", HOSTILE), ("for", "")]).await;
    assert!(paused.contains("The type is paused.") && paused.contains("until it is resumed"), "{paused}");
    assert!(!paused.contains(HOSTILE) && paused.contains("&lt;script&gt;"), "{paused}");
    assert!(page(&service, "/dashboard/types").await.contains("paused since <time"));
    let pause = echo_type(&service).await.pause.unwrap();
    assert_eq!((pause.reason.as_str(), pause.until), (HOSTILE, None));
    let id = service.endpoints.submit(ECHO, ()).await.unwrap().job.id;
    let longer = done(&service, "/dashboard/types/Echo/pause", &[("reason", "no paper"), ("for", "3600")]).await;
    assert!(longer.contains("no paper") && longer.contains("</time> until <time"), "{longer}");
    assert_eq!(support::found(&service.endpoints, id).await.status, JobStatus::Queued);
    let resumed = done(&service, "/dashboard/types/Echo/resume", &[]).await;
    assert!(resumed.contains("The type is resumed.") && resumed.contains("New jobs are started."), "{resumed}");
    support::ended(&service.endpoints, id).await;
    let audit = service.endpoints.audit().await.unwrap();
    let actions: Vec<_> = audit.iter().map(|entry| (entry.action.as_str(), entry.target.as_deref())).collect();
    assert_eq!(actions, [("type.resume", Some("Echo")), ("type.pause", Some("Echo")), ("type.pause", Some("Echo"))]);
    service.stop().await;
}

#[tokio::test]
async fn type_is_limited() {
    let service = start(Access::loopback()).await;
    let limited = done(&service, "/dashboard/types/Echo/limit", &[("perProcess", "2")]).await;
    assert!(limited.contains("limit is 2 per process") && limited.contains("Remove the limit"), "{limited}");
    assert_eq!(echo_type(&service).await.per_process, Some(2));
    let unlimited = done(&service, "/dashboard/types/Echo/unlimit", &[]).await;
    assert!(unlimited.contains("The limit is removed.") && !unlimited.contains("per process."), "{unlimited}");
    assert_eq!(echo_type(&service).await.per_process, None);
    let audit = service.endpoints.audit().await.unwrap();
    let said: Vec<_> = audit.iter().map(|entry| json!([entry.action, entry.values])).collect();
    assert_eq!(said, [json!(["type.unlimit", null]), json!(["type.limit", { "perProcess": "2" }])]);
    service.stop().await;
}

#[tokio::test]
async fn invalid_change_is_refused_with_a_reason() {
    let service = start(Access::loopback()).await;
    for (action, form, wanted) in [
        ("pause", ("reason", " "), "invalid reason"),
        ("pause", ("for", "60"), "invalid for"),
        ("limit", ("perProcess", "0"), "invalid perProcess"),
        ("limit", ("perProcess", "many"), "invalid perProcess"),
        ("limit", ("perProcess", ""), "invalid perProcess"),
    ] {
        let path = format!("/dashboard/types/Echo/{action}");
        let html = text(post(&service, &path, &[form]).await, StatusCode::BAD_REQUEST).await;
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    for action in ["pause", "resume", "unlimit"] {
        let path = format!("/dashboard/types/None/{action}");
        text(post(&service, &path, &[("reason", "r")]).await, StatusCode::NOT_FOUND).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn level_view_has_no_actions() {
    let service = start(Access::when(|_| AccessLevel::View)).await;
    let direct = Client::builder().redirect(Policy::none()).build().unwrap();
    for path in ["/types", "/types/Echo"] {
        let html = page(&service, &format!("/dashboard{path}")).await;
        let mut forms = html.split("method=\"post\" action=\"").skip(1);
        assert!(forms.all(|form| form.trim_start_matches("../").starts_with("dashboard/preferences\"")), "{html}");
    }
    for action in ["pause", "resume", "limit", "unlimit"] {
        let response = direct.post(service.url(&format!("/dashboard/types/Echo/{action}"))).send().await.unwrap();
        text(response, StatusCode::FORBIDDEN).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn outage_is_an_error_and_not_an_empty_page() {
    let (inner, flaky) = flaky_store();
    let builder = AsyncEndpoints::builder(flaky.clone()).options(quick()).access(Access::loopback());
    let service = serve(inner, declare(builder).build().unwrap()).await;
    flaky.outage(true);
    for path in ["/dashboard/types", "/dashboard/types/Echo"] {
        let html = text(get(&service, path).await, StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(html.contains("The job store did not answer"), "{path}: {html}");
    }
    let pause = post(&service, "/dashboard/types/Echo/pause", &[("reason", "no paper"), ("for", "3600")]).await;
    let html = text(pause, StatusCode::SERVICE_UNAVAILABLE).await;
    for wanted in
        ["may have been done", "name=\"reason\" value=\"no paper\"", "name=\"for\" value=\"3600\"", "Send again"]
    {
        assert!(html.contains(wanted), "the form can be sent again, {wanted}: {html}");
    }
    assert!(!html.contains("data-live="), "the page of a form does not load itself again: {html}");
    flaky.outage(false);
    service.stop().await;
}
