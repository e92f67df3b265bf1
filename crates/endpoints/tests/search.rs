//! Searching the job list: filters over HTTP and in code, how far a page searched, and lists as CSV.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, JobError, JobId, JobType, MemoryStore, Options, Timestamp,
    axum::http::request::Parts, core::store::Outcome,
};
use async_endpoints_testkit::{Fixture, ManualClock, Rig, jobs::error};
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use support::Service;

const FAILING: JobType<String, ()> = JobType::new("Failing").max_retries(0);
const WAITING: JobType<String, ()> = JobType::new("Waiting");

fn owner(request: &Parts) -> Option<String> {
    request.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned)
}

/// A failing job ends with its request as the detail of its error.
async fn service() -> Service {
    Service::start(|builder| {
        builder
            .access(Access::token("letmein"))
            .owner(owner)
            .endpoint(Endpoint::post("/failing", FAILING))
            .endpoint(Endpoint::post("/waiting", WAITING))
            .handler(FAILING, async |ctx: JobContext<String>| Err(JobError::permanent("NO", ctx.request().clone())))
    })
    .await
}

/// Fails a job of an owner with this detail.
async fn failed(service: &Service, owner: &str, detail: &str) -> JobId {
    let submit = service.endpoints.submit(FAILING, detail.to_owned()).owner(owner);
    let id = submit.await.unwrap().job.id;
    support::ended(&service.endpoints, id).await;
    id
}

/// Lists as an operator.
async fn list(service: &Service, query: &str) -> (StatusCode, Value) {
    let request = service.client.get(service.url(&format!("/jobs?{query}"))).bearer_auth("letmein");
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn ids(page: &Value) -> Vec<JobId> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn list_filters_by_code_text_and_time() {
    let service = service().await;
    let disk = failed(&service, "ada", "Disk 7 is full").await;
    let net = failed(&service, "bob", "No route to disk 8").await;
    let waiting = service.endpoints.submit(WAITING, "x".to_owned()).owner("ada").await.unwrap().job;
    let at = waiting.created_at;
    for (query, expected) in [
        ("code=NO".to_owned(), vec![net, disk]),
        ("code=no".to_owned(), vec![]),
        ("code=NO&status=Failed&q=DISK+7".to_owned(), vec![disk]),
        (format!("q={}", &waiting.id.to_string()[20..]), vec![waiting.id]),
        (format!("since={at}"), vec![waiting.id]),
        (format!("until={at}&name=Failing"), vec![net, disk]),
        (format!("until={at}&status=Queued"), vec![]),
        (format!("since={at}&until={at}"), vec![]),
    ] {
        let (status, page) = list(&service, &query).await;
        assert_eq!((status, ids(&page)), (StatusCode::OK, expected), "{query}");
        assert_eq!((&page["complete"], &page["nextCursor"]), (&json!(true), &json!(null)), "{query}");
        assert!(page["scanned"].as_u64().unwrap() <= 3, "{query}");
    }
    let (_, page) = list(&service, "q=disk&limit=1").await;
    assert_eq!((ids(&page), &page["scanned"], &page["complete"]), (vec![net], &json!(2), &json!(false)));
    let cursor = page["nextCursor"].as_str().unwrap();
    assert_eq!(ids(&list(&service, &format!("q=disk&limit=1&cursor={cursor}")).await.1), [disk]);
    for bad in [&format!("q=disk+&cursor={cursor}"), "q=", "code=", "since=now", "until=2026-11-29T12:00:00+01:00"] {
        let (status, problem) = list(&service, bad).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_QUERY")), "{bad}");
    }
    let (_, problem) = list(&service, "until=2026-11-29").await;
    assert!(problem["detail"].as_str().unwrap().starts_with("until must be a time"), "{problem}");
    service.stop().await;
}

#[tokio::test]
async fn owner_searches_own_jobs_only() {
    let service = service().await;
    let own = failed(&service, "ada", "Disk 7 is full").await;
    failed(&service, "bob", "Disk 8 is full").await;
    for query in ["q=disk", "code=NO", "since=2020-01-01T00:00:00Z", "status=Failed&q=disk&code=NO"] {
        let request = service.client.get(service.url(&format!("/jobs?{query}"))).header("x-user", "ada");
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(ids(&page), [own], "{query}");
    }
    service.stop().await;
}

/// Header and body of a list as CSV.
async fn csv(service: &Service, path: &str, token: Option<&str>) -> (HeaderMap, String) {
    let request = service.client.get(service.url(path)).header("accept", "text/csv").header("x-user", "ada");
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    (response.headers().clone(), response.text().await.unwrap())
}

#[tokio::test]
async fn list_is_returned_as_csv() {
    let service = service().await;
    let formula = failed(&service, "ada", "=1+1, \"quoted\"").await;
    let plain = failed(&service, "ada", "-7 is too low").await;
    let (headers, text) = csv(&service, "/jobs?status=Failed&q=%71uoted&limit=1", Some("letmein")).await;
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!(headers["vary"], "Accept");
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("id,name,status,attempt,"), "{text}");
    assert!(lines[1].starts_with(&format!("{formula},Failing,Failed,1,")), "{text}");
    assert!(lines[1].contains(r#",NO,"'=1+1, ""quoted""","#), "{text}");
    // The link has the request's own filters.
    let next = headers["link"].to_str().unwrap().strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    assert!(next.starts_with("/jobs?status=Failed&q=quoted&limit=1&cursor="), "{next}");
    let (headers, text) = csv(&service, next, Some("letmein")).await;
    assert_eq!((headers.get("link"), text.lines().count()), (None, 1));

    let (_, text) = csv(&service, "/jobs?q=too+low", None).await;
    assert!(text.contains(&plain.to_string()) && text.contains(",'-7 is too low,"), "{text}");
    assert!(text.trim_end().ends_with(",,"), "an owner does not see how owners are stored: {text}");
    service.stop().await;
}

#[tokio::test]
async fn distant_job_is_found_page_by_page() {
    let clock = ManualClock::new();
    let rig = Rig::new(&Fixture::manual(MemoryStore::with_clock(clock.clone()), clock));
    let endpoints = AsyncEndpoints::builder(rig.store.clone()).options(Options::default()).build().unwrap();
    let lease = rig.start("A").await.lease;
    rig.settle(lease, Outcome::Failed { error: error("NEEDLE") }).await;
    for _ in 0..10_000 {
        rig.queue("A").await;
    }
    let (mut cursor, mut found, mut scanned): (Option<String>, Vec<JobId>, Vec<u32>) = Default::default();
    loop {
        let jobs = cursor.take().into_iter().fold(endpoints.jobs().code("NEEDLE"), |jobs, at| jobs.cursor(at));
        let page = jobs.await.unwrap();
        scanned.push(page.scanned);
        assert_eq!(page.is_complete(), page.next_cursor.is_none());
        found.extend(page.jobs.iter().map(|job| job.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((found, scanned), (vec![lease.job], vec![2_000, 2_000, 2_000, 2_000, 2_000, 1]));
    let future = endpoints.jobs().since(Timestamp::from_micros(i64::MAX)).await.unwrap();
    assert_eq!((future.jobs.len(), future.scanned), (0, 0));
}
