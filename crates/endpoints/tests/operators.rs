//! Operator routes: list and retry.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::collections::BTreeSet;

use async_endpoints::{Endpoint, JobContext, JobError, JobId, JobType};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::Service;

const FAILING: JobType<u32, ()> = JobType::new("Failing").max_retries(0);
const WORKS: JobType<u32, u32> = JobType::new("Works");
const WAITING: JobType<u32, ()> = JobType::new("Waiting");

async fn service() -> Service {
    Service::start(|builder| {
        builder
            .endpoint(Endpoint::post("/failing", FAILING))
            .endpoint(Endpoint::post("/waiting", WAITING))
            .endpoint(Endpoint::post("/works", WORKS))
            .handler(WORKS, async |ctx: JobContext<u32>| Ok(*ctx.request()))
            .handler(FAILING, async |_: JobContext<u32>| Err(JobError::permanent("NO", "It always fails.")))
    })
    .await
}

async fn get(service: &Service, path: &str) -> (StatusCode, Value) {
    let response = service.client.get(service.url(path)).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn ids(page: &Value) -> Vec<String> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pages_list_each_job_once_newest_first() {
    let service = service().await;
    let mut expected = Vec::new();
    for n in 0..7 {
        expected.push(service.submit("/waiting", json!(n)).await.to_string());
    }
    expected.reverse();
    let (_, first) = get(&service, "/jobs?limit=3").await;
    let late = service.submit("/waiting", json!(7)).await;
    let mut found = ids(&first);
    let mut cursor = first["nextCursor"].as_str().map(str::to_owned);
    while let Some(at) = cursor {
        let (_, page) = get(&service, &format!("/jobs?limit=3&cursor={at}")).await;
        found.extend(ids(&page));
        cursor = page["nextCursor"].as_str().map(str::to_owned);
    }
    assert_eq!(found, expected, "the last job is newer than the first page");
    assert_eq!(ids(&get(&service, "/jobs?limit=1").await.1), [late.to_string()]);
    service.stop().await;
}

#[tokio::test]
async fn list_filters_by_state_and_type() {
    let service = service().await;
    let failed = service.submit("/failing", json!(1)).await;
    service.ended(failed).await;
    let completed = service.submit("/works", json!(3)).await;
    assert_eq!(service.ended(completed).await["result"], 3);
    let waiting = service.submit("/waiting", json!(2)).await;
    for (query, expected) in [
        ("status=Failed", vec![failed]),
        ("status=Queued&name=Waiting", vec![waiting]),
        ("name=Failing", vec![failed]),
        ("status=Completed", vec![completed]),
        ("name=Unknown", vec![]),
    ] {
        let (status, page) = get(&service, &format!("/jobs?{query}")).await;
        let expected: Vec<String> = expected.iter().map(JobId::to_string).collect();
        assert_eq!((status, ids(&page)), (StatusCode::OK, expected), "{query}");
        assert!(page["jobs"].as_array().unwrap().iter().all(|job| job["result"].is_null()));
    }
    let cursor = get(&service, "/jobs?limit=1").await.1["nextCursor"].as_str().unwrap().to_owned();
    for bad in
        ["limit=0", "limit=201", "status=failed", "cursor=x", &format!("status=Failed&cursor={cursor}"), "state=x"]
    {
        let (status, problem) = get(&service, &format!("/jobs?{bad}")).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_QUERY")), "{bad}");
    }
    service.stop().await;
}

#[tokio::test]
async fn retry_makes_one_new_job() {
    let service = service().await;
    let failed = service.submit("/failing", json!(1)).await;
    let version = service.ended(failed).await["version"].as_u64().unwrap();
    let retry = async |id: JobId| service.client.post(service.url(&format!("/jobs/{id}/retry"))).send().await.unwrap();
    let header = |response: &Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let first = retry(failed).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let location = header(&first, "location");
    let new: Value = first.json().await.unwrap();
    assert_eq!(location, format!("/jobs/{}", new["id"].as_str().unwrap()));
    assert_eq!((&new["retryOf"], &new["status"]), (&json!(failed), &json!("Queued")));
    let again = retry(failed).await;
    assert_eq!((again.status(), header(&again, "idempotent-replayed").as_str()), (StatusCode::ACCEPTED, "true"));
    assert_eq!(header(&again, "location"), location);
    let old = service.job(failed).await;
    assert_eq!((&old["retriedBy"], &old["status"]), (&new["id"], &json!("Failed")));
    assert_eq!(old["version"], version + 1);
    let waiting = service.submit("/waiting", json!(2)).await;
    let refused = retry(waiting).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "JOB_NOT_RETRYABLE");
    let failed = service.submit("/failing", json!(3)).await;
    service.ended(failed).await;
    let all = futures_util::future::join_all((0..16).map(|_| retry(failed))).await;
    let new: BTreeSet<String> = all.iter().map(|response| header(response, "location")).collect();
    assert_eq!(new.len(), 1, "concurrent retries make one job");
    service.stop().await;
}
