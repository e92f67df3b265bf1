//! The page about bulk operations and the audit trail over HTTP.
#![cfg(feature = "dashboard")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    Access, AccessLevel, AsyncEndpoints, Builder, Endpoint, JobContext, JobError, JobId, JobStatus, JobType,
};
use reqwest::{Client, StatusCode, redirect::Policy};
use serde_json::json;
use support::{
    Service,
    dashboard::{self, page, post, serve, text},
    flaky_store, quick, until,
};

const REFUSE: JobType<String, ()> = JobType::new("Refuse").max_retries(0);
const LATER: JobType<(), ()> = JobType::new("Later");

async fn refuse(ctx: JobContext<String>) -> Result<(), JobError> {
    Err(JobError::permanent(ctx.request().clone(), "There is no paper."))
}

fn declare(builder: Builder) -> Builder {
    builder.endpoint(Endpoint::post("/refuse", REFUSE)).handler(REFUSE, refuse).handled_elsewhere(LATER)
}

async fn start(access: Access) -> Service {
    dashboard::start(access, declare).await
}

/// Fails a job with this error code.
async fn failed(service: &Service, code: &str) -> JobId {
    let id = service.submit("/refuse", json!(code)).await;
    support::ended(&service.endpoints, id).await;
    id
}

/// Names and values of the hidden fields of the form that has this button.
fn hidden<'a>(html: &'a str, button: &str) -> Vec<(&'a str, &'a str)> {
    let form = html.split("<form").find(|form| form.contains(button)).unwrap_or_else(|| panic!("{button}: {html}"));
    let fields = form.split("<input type=\"hidden\" name=\"").skip(1);
    fields
        .map(|field| field.split_once("\" value=\"").unwrap())
        .map(|(name, rest)| (name, rest.split('"').next().unwrap()))
        .collect()
}

#[tokio::test]
async fn jobs_of_a_list_are_retried_after_a_preview() {
    let service = start(Access::loopback()).await;
    let (paper, ink) = (failed(&service, "NO_PAPER").await, failed(&service, "NO_INK").await);
    let list = page(&service, "/dashboard/jobs?status=Failed&code=NO_PAPER").await;
    let fields = hidden(&list, "Retry…</button>");
    assert_eq!(fields, [("action", "retry"), ("status", "Failed"), ("code", "NO_PAPER")]);
    assert!(!list.contains("Cancel…</button>"), "ended jobs cannot be canceled: {list}");
    let preview = text(post(&service, "/dashboard/operations/preview", &fields).await, StatusCode::OK).await;
    assert!(
        preview.contains("<b>1</b> failed job with error code <code>NO_PAPER</code>.")
            && preview.contains(&paper.to_string()),
        "{preview}"
    );
    assert!(support::found(&service.endpoints, paper).await.retried_by.is_none(), "a preview changes nothing");
    let start = hidden(&preview, "Retry these jobs");
    let started = text(post(&service, "/dashboard/operations/start", &start).await, StatusCode::OK).await;
    assert!(started.contains("The operation is started."), "{started}");
    until(async || support::found(&service.endpoints, paper).await.retried_by.is_some()).await;
    assert!(support::found(&service.endpoints, ink).await.retried_by.is_none());
    until(async || page(&service, "/dashboard/operations").await.contains("status completed")).await;
    let html = page(&service, "/dashboard/operations").await;
    let by = format!("<a href=\"../dashboard/operations?audit={}#audit\">loopback</a>", start[0].1);
    assert!(html.contains(&by), "{by}: {html}");
    for wanted in ["1 of 1", "error code <code>NO_PAPER</code>", "bulk.preview", "bulk.start", "loopback"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    service.stop().await;
}

#[tokio::test]
async fn failures_lead_to_a_preview() {
    let service = start(Access::loopback()).await;
    let id = failed(&service, "NO_PAPER").await;
    let failures = page(&service, "/dashboard/failures?window=900").await;
    let fields = hidden(&failures, "Retry…</button>");
    let expected = [("status", "Failed"), ("name", "Refuse"), ("code", "NO_PAPER"), ("endedWithin", "900")];
    assert_eq!((fields[0], &fields[1..]), (("action", "retry"), expected.as_slice()));
    let preview = async |fields: &[(&str, &str)]| {
        text(post(&service, "/dashboard/operations/preview", fields).await, StatusCode::OK).await
    };
    let html = preview(&fields).await;
    assert!(
        html.contains("<b>1</b> failed job of type <code>Refuse</code>") && html.contains(", ended since "),
        "{html}"
    );
    for (since, count) in [("2026-11-28T12:00", 1), ("2126-11-28T12:00", 0)] {
        let html = preview(&[("action", "retry"), ("code", "NO_PAPER"), ("endedSince", since)]).await;
        assert!(html.contains(&format!("<b>{count}</b> ")) && html.contains(", ended since "), "{html}");
    }
    for (field, expected) in [("endedWithin", "a number of seconds"), ("endedSince", "a time, such as ")] {
        let invalid = [("action", "retry"), (field, "soon")];
        let html = text(post(&service, "/dashboard/operations/preview", &invalid).await, StatusCode::BAD_REQUEST).await;
        assert!(html.contains(&format!("invalid {field} &quot;soon&quot;: expected {expected}")), "{html}");
    }
    service.endpoints.retry(id).await.unwrap();
    let html = preview(&fields).await;
    assert!(!html.contains(&id.to_string()) && html.contains("retried before are left out"), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn form_cancels_waiting_jobs() {
    let service = start(Access::loopback()).await;
    let id = service.endpoints.submit(LATER, ()).await.unwrap().job.id;
    let html = page(&service, "/dashboard/operations").await;
    assert!(html.contains("New bulk operation") && html.contains("<option>Later</option>"), "{html}");
    let form = [("action", "cancel"), ("status", "Queued"), ("name", "Later"), ("code", ""), ("q", "")];
    let preview = text(post(&service, "/dashboard/operations/preview", &form).await, StatusCode::OK).await;
    let start = hidden(&preview, "Cancel these jobs");
    post(&service, "/dashboard/operations/start", &start).await;
    until(async || support::found(&service.endpoints, id).await.status == JobStatus::Canceled).await;
    let stop = format!("/dashboard/operations/{}/stop", start[0].1);
    text(post(&service, &stop, &[]).await, StatusCode::OK).await;
    service.stop().await;
}

#[tokio::test]
async fn empty_preview_cannot_be_started() {
    let service = start(Access::loopback()).await;
    let form = [("action", "cancel"), ("q", "<script>")];
    let html = text(post(&service, "/dashboard/operations/preview", &form).await, StatusCode::OK).await;
    assert!(
        html.contains("<b>0</b> waiting and running jobs")
            && html.contains("&lt;script&gt;")
            && !html.contains("these jobs<"),
        "{html}"
    );
    service.stop().await;
}

#[tokio::test]
async fn invalid_operation_is_refused_with_a_reason() {
    let service = start(Access::loopback()).await;
    for (form, wanted) in [
        ([("action", "delete"), ("name", "")], "invalid action"),
        ([("action", "retry"), ("status", "Broken")], "invalid status"),
        ([("action", "retry"), ("status", "Queued")], "invalid status"),
        ([("action", "retry"), ("name", "a b")], "invalid job name"),
        ([("action", "retry"), ("since", "noon")], "invalid since"),
        ([("action", "retry"), ("owner", "x")], "invalid owner"),
    ] {
        let html = text(post(&service, "/dashboard/operations/preview", &form).await, StatusCode::BAD_REQUEST).await;
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let typed = [
        ("action", "cancel"),
        ("status", "Failed"),
        ("code", "\"A\""),
        ("q", "fog"),
        ("endedSince", "2026-11-29T12:00"),
    ];
    let html = text(post(&service, "/dashboard/operations/preview", &typed).await, StatusCode::BAD_REQUEST).await;
    for wanted in [
        "role=\"alert\"",
        "<option value=\"cancel\" selected>",
        "<option selected>Failed</option>",
        "name=\"code\" value=\"&quot;A&quot;\"",
        "name=\"q\" value=\"fog\"",
        "name=\"endedSince\" value=\"2026-11-29T12:00\"",
    ] {
        assert!(html.contains(wanted), "the form keeps its values, {wanted}: {html}");
    }
    assert_eq!(service.endpoints.audit().await.expect("a trail")[0].outcome, "INVALID_REQUEST");
    let unknown = [("preview", "00000000-0000-0000-0000-000000000000")];
    text(post(&service, "/dashboard/operations/start", &unknown).await, StatusCode::NOT_FOUND).await;
    text(post(&service, "/dashboard/operations/7/stop", &[]).await, StatusCode::NOT_FOUND).await;
    service.stop().await;
}

#[tokio::test]
async fn level_view_has_no_actions() {
    let service = start(Access::when(|_| AccessLevel::View)).await;
    failed(&service, "NO_PAPER").await;
    for path in ["/operations", "/failures", "/jobs"] {
        let html = page(&service, &format!("/dashboard{path}")).await;
        let mut forms = html.split("method=\"post\"").skip(1);
        assert!(forms.all(|form| form.starts_with(" action=\"../dashboard/preferences\"")), "{html}");
    }
    let direct = Client::builder().redirect(Policy::none()).build().unwrap();
    for path in ["/operations/preview", "/operations/start", "/operations/7/stop"] {
        let response = direct.post(service.url(&format!("/dashboard{path}"))).send().await.unwrap();
        text(response, StatusCode::FORBIDDEN).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn newest_actions_are_shown_and_others_are_found() {
    let service = start(Access::loopback()).await;
    let pause = [("reason", "No Paper"), ("for", "3600")];
    text(post(&service, "/dashboard/types/Refuse/pause", &pause).await, StatusCode::OK).await;
    for _ in 0..101 {
        post(&service, "/dashboard/operations/start", &[("preview", "x")]).await;
    }
    let rows = |html: &str| html.matches("<code>bulk.start</code>").count();
    let html = page(&service, "/dashboard/operations").await;
    assert!(rows(&html) == 100 && html.contains("href=\"../dashboard/operations?all=yes\">Show all 102</a>"), "{html}");
    let html = page(&service, "/dashboard/operations?all=yes").await;
    assert!(rows(&html) == 101 && !html.contains("Show all"), "{html}");
    for text in ["no+paper", "TYPE.pause", "refuse", "3600"] {
        let html = page(&service, &format!("/dashboard/operations?audit={text}")).await;
        assert!(html.contains("<td class=\"wide\">for: 3600 · reason: No Paper</td>"), "{text}: {html}");
        assert_eq!(rows(&html), 0, "{text}");
    }
    let html = page(&service, "/dashboard/operations?audit=absent").await;
    assert!(html.contains("None of the last 102 actions has this text."), "{html}");
    service.stop().await;
}

#[tokio::test]
async fn outage_is_an_error_and_not_an_empty_page() {
    let (inner, flaky) = flaky_store();
    let builder = AsyncEndpoints::builder(flaky.clone()).options(quick()).access(Access::loopback());
    let service = serve(inner, declare(builder).build().unwrap()).await;
    flaky.outage(true);
    let response = service.client.get(service.url("/dashboard/operations")).send().await.unwrap();
    assert!(text(response, StatusCode::SERVICE_UNAVAILABLE).await.contains("The job store did not answer"));
    flaky.outage(false);
    service.stop().await;
}
