//! The pages about the fleet over HTTP: workers, health checks, alerts.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AccessLevel, AsyncEndpoints, Builder, Endpoint, JobContext, JobError, JobType,
    alerts::{AlertSender, Alerts, BoxError, Notification, Reading, Rule, SendError},
    async_trait,
    core::{
        JobStore, MemoryStore,
        store::{Heartbeat, WorkerId, WorkerInfo},
    },
};
use async_endpoints_testkit::{Checked, ManualClock, jobs::worker};
use reqwest::{Client, StatusCode, redirect::Policy};
use serde_json::json;
use support::{
    PATIENCE, Service,
    dashboard::{self, get, page, post, serve, text},
    flaky_store, quick, until,
};

const WAIT: JobType<String, ()> = JobType::new("Wait").concurrency(3);
const REFUSE: JobType<String, ()> = JobType::new("Refuse").max_retries(0);
/// A text that would become markup without escaping.
const HOSTILE: &str = "\"><script>alert(1)</script>";
const ESCAPED: &str = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;";

async fn wait(ctx: JobContext<String>) -> Result<(), JobError> {
    ctx.cancellation().cancelled().await;
    Err(JobError::permanent("STOPPED", "The job was canceled."))
}

async fn refuse(ctx: JobContext<String>) -> Result<(), JobError> {
    Err(JobError::permanent(ctx.request().clone(), "There is no paper."))
}

/// Refuses every notification.
struct Refusing;

#[async_trait]
impl AlertSender for Refusing {
    fn kind(&self) -> &'static str {
        "refusing"
    }

    async fn send(&self, _: &Notification) -> Result<(), SendError> {
        Err(SendError::Permanent(HOSTILE.to_owned()))
    }
}

/// Alerts with a rule that fires at once.
fn alerts() -> Alerts {
    let read = async || Ok::<_, BoxError>(Reading::new(7.0, "7 exports wait").with("queue", HOSTILE));
    Alerts::new()
        .interval(Duration::from_millis(100))
        .rule("backlog", Rule::above(5.0, read))
        .sender("refusing", Refusing)
}

fn declare(builder: Builder) -> Builder {
    builder
        .endpoint(Endpoint::post("/wait", WAIT))
        .endpoint(Endpoint::post("/refuse", REFUSE))
        .handler(WAIT, wait)
        .handler(REFUSE, refuse)
        .alerts(alerts())
}

async fn start(access: Access) -> Service {
    dashboard::start(access, declare).await
}

/// Loads a page until it has a text.
async fn page_with(service: &Service, path: &str, wanted: &str) -> String {
    let found = async {
        loop {
            let html = page(service, path).await;
            if html.contains(wanted) {
                return html;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the page has the text in time")
}

#[tokio::test]
async fn workers_have_process_slots_and_types() {
    let service = start(Access::loopback()).await;
    let id = service.submit("/wait", json!("a")).await;
    let html = page_with(&service, "/dashboard/workers", "Wait</a> 1 of 3").await;
    assert!(html.contains(&format!("<td class=\"number\">{}</td>", std::process::id())), "{html}");
    assert!(html.contains("dashboard/jobs?status=InProgress&amp;name=Wait\""), "{html}");
    service.cancel(id).await;
    service.stop().await;
}

#[tokio::test]
async fn worker_without_heartbeats_is_silent() {
    let clock = ManualClock::new();
    let store = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
    let types = Vec::new();
    let worker = WorkerInfo { host: "printer".to_owned(), types, ..worker(WorkerId(uuid::Uuid::from_u128(7))) };
    store.renew(&Heartbeat { worker, ttl: Duration::from_secs(60) }, &[], Duration::from_secs(60)).await.unwrap();
    clock.advance(Duration::from_secs(5));
    let endpoints = support::builder(&store).handled_elsewhere(WAIT).build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.dashboard_routes()).merge(endpoints.monitoring_routes());
    let service = Service::serve_app(store, endpoints, app).await;
    let html = page_with(&service, "/dashboard/workers", "printer").await;
    for wanted in
        ["Live workers</span><b>0</b>", "Silent workers</span><b>1</b>", ">Silent</span> for ", "Idle</span><b>0</b>"]
    {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let health: serde_json::Value = get(&service, "/health").await.json().await.unwrap();
    let check = health["checks"].as_array().unwrap().iter().find(|check| check["name"] == "workers").unwrap();
    assert_eq!(check["data"]["live_workers"], 0);
    service.stop().await;
}

#[tokio::test]
async fn fleet_without_workers_says_so() {
    let store = support::store();
    let endpoints = support::builder(&store).handled_elsewhere(WAIT).build().unwrap();
    let service = serve(store, endpoints).await;
    assert!(page(&service, "/dashboard/workers").await.contains("No worker is live."));
    assert!(page(&service, "/dashboard/failures").await.contains("No job failed in this period."));
    let html = page(&service, "/dashboard/health").await;
    assert!(html.contains("This application has no alerts.") && !html.contains("Silence a rule"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn failures_are_grouped_and_link_to_their_jobs() {
    let service = start(Access::loopback()).await;
    let mut last = None;
    for code in ["NO_PAPER", "NO_INK", "NO_PAPER"] {
        let id = service.submit("/refuse", json!(code)).await;
        support::ended(&service.endpoints, id).await;
        last = Some(id);
    }
    let html = page(&service, "/dashboard/failures").await;
    let row = html.split("<tr id=\"failure-Refuse-NO_PAPER\">").nth(1).unwrap().split("</tr>").next().unwrap();
    let link = "../dashboard/jobs?status=Failed&amp;name=Refuse&amp;code=NO_PAPER";
    assert!(row.contains(link) && row.contains("<td class=\"number\">2</td>"), "{row}");
    assert!(row.contains(&format!("dashboard/jobs/{}\"", last.unwrap())), "{row}");
    let listed = page(&service, &link.replace("..", "").replace("&amp;", "&")).await;
    assert_eq!(listed.matches("id=\"job-").count(), 2, "{listed}");
    assert!(page(&service, "/dashboard/failures?window=900").await.contains("NO_INK"));
    let since = page(&service, "/dashboard/failures?since=2026-11-28T12:00").await;
    assert!(since.contains("NO_INK") && since.contains("value=\"2026-11-28T12:00\""), "{since}");
    let retry = "name=\"endedSince\" value=\"2026-11-28T12:00:00.000000Z\"";
    assert_eq!(since.matches(retry).count(), 2, "{since}");
    let later = page(&service, "/dashboard/failures?since=2126-11-28T12:00:00Z").await;
    assert!(later.contains("No job failed in this period."), "{later}");
    for invalid in ["window=1", "since=noon"] {
        let path = format!("/dashboard/failures?{invalid}");
        text(get(&service, &path).await, StatusCode::BAD_REQUEST).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn health_shows_checks_and_rules() {
    let service = start(Access::loopback()).await;
    let html = page_with(&service, "/dashboard/health", "status firing").await;
    for wanted in ["id=\"check-asyncendpoints\"", "status healthy", "store_latency_ms", "id=\"rule-backlog\""] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    assert!(html.contains(ESCAPED) && !html.contains(HOSTILE), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn rule_is_silenced_and_the_silence_is_ended() {
    let service = start(Access::loopback()).await;
    let form = [("rule", "backlog"), ("for", "3600"), ("reason", HOSTILE)];
    let html = text(post(&service, "/dashboard/health/silences", &form).await, StatusCode::OK).await;
    assert!(html.contains("The rule is silenced.") && html.contains(ESCAPED) && !html.contains(HOSTILE), "{html}");
    let silences = service.endpoints.alert_status().await.unwrap().silences;
    assert_eq!((silences.len(), silences[0].author.as_str(), silences[0].reason.as_str()), (1, "loopback", HOSTILE));
    let end = format!("/dashboard/health/silences/{}/end", silences[0].id);
    let html = text(post(&service, &end, &[]).await, StatusCode::OK).await;
    assert!(html.contains("The silence has ended.") && html.contains("No rule is silenced."), "{html}");
    assert!(text(post(&service, &end, &[]).await, StatusCode::OK).await.contains("had already ended"));
    service.stop().await;
}

#[tokio::test]
async fn invalid_silence_is_refused_with_a_reason() {
    let service = start(Access::loopback()).await;
    for (form, wanted) in [
        ([("rule", HOSTILE), ("for", "3600"), ("reason", "r")], "invalid rule"),
        ([("rule", "backlog"), ("for", "3600"), ("reason", " ")], "invalid reason"),
        ([("rule", "backlog"), ("for", "60"), ("reason", "r")], "invalid for"),
        ([("rule", "backlog"), ("for", ""), ("reason", "r")], "for is missing"),
    ] {
        let html = text(post(&service, "/dashboard/health/silences", &form).await, StatusCode::BAD_REQUEST).await;
        assert!(html.contains(wanted) && !html.contains(HOSTILE), "{wanted}: {html}");
    }
    text(post(&service, "/dashboard/health/silences/7/end", &[]).await, StatusCode::NOT_FOUND).await;
    service.stop().await;
}

#[tokio::test]
async fn test_of_senders_shows_each_result() {
    let service = start(Access::loopback()).await;
    let html = text(post(&service, "/dashboard/health/test", &[]).await, StatusCode::OK).await;
    assert!(html.contains("status failed") && html.contains(ESCAPED) && !html.contains(HOSTILE), "{html}");
    assert!(!html.contains("data-live="), "the result does not change: {html}");
    let reloaded = get(&service, "/dashboard/health/test").await;
    assert!(reloaded.url().path().ends_with("/dashboard/health"), "{}", reloaded.url());
    service.stop().await;
}

#[tokio::test]
async fn level_view_has_no_actions() {
    let service = start(Access::when(|_| AccessLevel::View)).await;
    let direct = Client::builder().redirect(Policy::none()).build().unwrap();
    for path in ["/workers", "/failures", "/health"] {
        let html = page(&service, &format!("/dashboard{path}")).await;
        let forms = html.split("method=\"post\"").skip(1);
        assert!(
            forms.clone().count() > 0
                && forms.clone().all(|form| form.starts_with(" action=\"../dashboard/preferences\"")),
            "{html}"
        );
    }
    for path in ["/health/silences", "/health/silences/7/end", "/health/test"] {
        let response = direct.post(service.url(&format!("/dashboard{path}"))).send().await.unwrap();
        let html = text(response, StatusCode::FORBIDDEN).await;
        assert!(html.contains("Actions need the level operate."), "{path}: {html}");
    }
    service.stop().await;
}

#[tokio::test]
async fn outage_is_an_error_and_not_an_empty_page() {
    let (inner, flaky) = flaky_store();
    let builder = AsyncEndpoints::builder(flaky.clone()).options(quick()).access(Access::loopback());
    let service = serve(inner, declare(builder).build().unwrap()).await;
    until(async || get(&service, "/dashboard/workers").await.status() == StatusCode::OK).await;
    flaky.outage(true);
    for path in ["/dashboard/workers", "/dashboard/failures"] {
        until(async || get(&service, path).await.status() == StatusCode::SERVICE_UNAVAILABLE).await;
        let html = text(get(&service, path).await, StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(html.contains("The job store did not answer"), "{path}: {html}");
    }
    let html = text(get(&service, "/dashboard/health").await, StatusCode::OK).await;
    for wanted in ["id=\"check-", "Alerts and silences are not available. The job store did not answer"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    flaky.outage(false);
    service.stop().await;
}
