//! Owners of jobs: their lists and actions, over HTTP and from code, and what operators and handlers see of an owner.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    Access, AsyncEndpoints, CancelOutcome, Endpoint, JobContext, JobError, JobId, JobLookup, JobStatus, JobType,
    ListError, Options, RetryOutcome, axum::http::request::Parts,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Service, found};

const WAITING: JobType<(), ()> = JobType::new("Waiting");
const FAILING: JobType<(), ()> = JobType::new("Failing").max_retries(0);
const WHO: JobType<(), Value> = JobType::new("Who");

const ADA: &str = "fdee430d40bd57deeac186cd9790033d0f06f909a8806e7ce6e717ab7c7d5029";

fn owner(request: &Parts) -> Option<String> {
    request.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned)
}

async fn who(ctx: JobContext<()>) -> Result<Value, JobError> {
    let owner = ctx.owner().map(|owner| json!([owner.to_string(), owner.label(), owner.is("ada")]));
    Ok(owner.unwrap_or_default())
}

async fn service(options: Options) -> Service {
    Service::start(|builder| {
        builder
            .options(options)
            .access(Access::token("letmein"))
            .owner(owner)
            .endpoint(Endpoint::post("/waiting", WAITING))
            .endpoint(Endpoint::post("/who", WHO))
            .handler(WHO, who)
            .handler(FAILING, async |_: JobContext<()>| Err(JobError::permanent("NO", "It always fails.")))
    })
    .await
}

async fn submit(endpoints: &AsyncEndpoints, job: JobType<(), ()>, owner: Option<&str>) -> JobId {
    let submit = endpoints.submit(job, ());
    let submit = owner.into_iter().fold(submit, |submit, owner| submit.owner(owner));
    submit.await.unwrap().job.id
}

/// A job of Ada among jobs of others, older than a whole page of them.
async fn crowd(endpoints: &AsyncEndpoints) -> JobId {
    let own = submit(endpoints, WAITING, Some("ada")).await;
    for number in 0..230 {
        submit(endpoints, WAITING, (number % 2 == 0).then_some("bob")).await;
    }
    own
}

fn ids(page: &Value) -> Vec<JobId> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn first_page_of_an_owner_is_full() {
    let service = service(support::quick()).await;
    let own = [crowd(&service.endpoints).await, submit(&service.endpoints, WAITING, Some("ada")).await];
    let list = async |query: &str| {
        let request = service.client.get(service.url(&format!("/jobs?{query}"))).header("x-user", "ada");
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    for query in ["limit=2", "limit=2&name=Waiting"] {
        assert_eq!(ids(&list(query).await), [own[1], own[0]], "{query}");
    }
    // In the order of the state.
    assert_eq!(ids(&list("limit=2&status=Queued").await), own);
    let page = list("limit=1").await;
    let next = list(&format!("limit=1&cursor={}", page["nextCursor"].as_str().unwrap())).await;
    assert_eq!((ids(&page), ids(&next)), (vec![own[1]], vec![own[0]]));
    assert_eq!(list("status=Failed").await["jobs"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn operator_filters_by_owner() {
    let service = service(support::quick()).await;
    let own = crowd(&service.endpoints).await;
    let list = async |query: &str, operator: bool| {
        let request = service.client.get(service.url(&format!("/jobs?{query}"))).header("x-user", "bob");
        let request = if operator { request.bearer_auth("letmein") } else { request };
        let response = request.send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    let (_, page) = list(&format!("owner={ADA}"), true).await;
    assert_eq!((ids(&page), &page["jobs"][0]["owner"]), (vec![own], &json!(ADA)));
    assert_eq!(list("limit=200", true).await.1["jobs"].as_array().map(Vec::len), Some(200), "jobs of all owners");
    for (query, operator) in [(format!("owner={ADA}"), false), ("owner=ada".to_owned(), true)] {
        let (status, problem) = list(&query, operator).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_QUERY")), "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn query_in_code_is_limited_to_its_owner() {
    let service = service(support::quick()).await;
    let endpoints = &service.endpoints;
    let (waiting, failed) = (crowd(endpoints).await, submit(endpoints, FAILING, Some("ada")).await);
    support::ended(endpoints, failed).await;
    let ids = async |jobs: async_endpoints::Jobs<'_>| -> Vec<JobId> {
        jobs.await.unwrap().jobs.iter().map(|job| job.id).collect()
    };
    let ada = || endpoints.jobs().owner("ada");
    assert_eq!(ids(ada()).await, [failed, waiting]);
    assert_eq!(ids(ada().job_type(FAILING)).await, [failed]);
    assert_eq!(ids(ada().status(JobStatus::Failed)).await, [failed]);
    assert_eq!(ids(ada().status(JobStatus::Queued).limit(1)).await, [waiting]);
    assert_eq!(endpoints.jobs().limit(1000).await.unwrap().jobs.len(), 200, "without an owner: all jobs");

    let first = ada().limit(1).await.unwrap().next_cursor.unwrap();
    assert_eq!(ids(ada().cursor(&first)).await, [waiting]);
    let foreign = endpoints.jobs().owner("bob").cursor(&first).await;
    assert!(matches!(foreign, Err(ListError::InvalidCursor)), "{foreign:?}");

    let bob = endpoints.jobs().owner("bob");
    assert_eq!(bob.job(waiting).await.unwrap(), JobLookup::NotFound);
    assert_eq!(bob.cancel(waiting).await.unwrap(), CancelOutcome::NotFound);
    assert_eq!(bob.retry(failed).await.unwrap(), RetryOutcome::NotFound);
    assert_eq!(found(endpoints, waiting).await.status, JobStatus::Queued);
    assert!(matches!(ada().job(waiting).await.unwrap(), JobLookup::Found(_)));
    assert!(matches!(ada().cancel(waiting).await.unwrap(), CancelOutcome::Canceled(_)));
    assert!(matches!(ada().retry(failed).await.unwrap(), RetryOutcome::Created(_)));
    service.stop().await;
}

#[tokio::test]
async fn owner_is_shown_to_operators_and_handlers() {
    for keeps in [false, true] {
        let service = service(Options { owner_labels: keeps, ..support::quick() }).await;
        let request = service.client.post(service.url("/who")).header("x-user", "ada");
        let id: Value = request.send().await.unwrap().json().await.unwrap();
        let id: JobId = id["id"].as_str().unwrap().parse().unwrap();
        support::ended(&service.endpoints, id).await;
        let job = async |operator: bool| {
            let request = service.client.get(service.url(&format!("/jobs/{id}"))).header("x-user", "ada");
            let request = if operator { request.bearer_auth("letmein") } else { request };
            request.send().await.unwrap().json::<Value>().await.unwrap()
        };
        let label = if keeps { json!("ada") } else { Value::Null };
        let seen = job(true).await;
        assert_eq!((&seen["owner"], seen.get("ownerLabel")), (&json!(ADA), Some(&label)));
        assert_eq!(seen["result"], json!([ADA, label, true]));
        let seen = job(false).await;
        assert!(seen.get("owner").is_none() && seen.get("ownerLabel").is_none(), "{seen}");

        let without = service.endpoints.submit(WHO, ()).await.unwrap().job.id;
        support::ended(&service.endpoints, without).await;
        assert_eq!(found(&service.endpoints, without).await.result.as_deref(), Some(b"null".as_slice()));
        service.stop().await;
    }
}

#[tokio::test]
async fn document_demands_no_token_of_owners() {
    let token = json!([{ "token": [] }]);
    for has_owners in [false, true] {
        let service = Service::start(|builder| {
            let builder = builder.access(Access::token("letmein"));
            if has_owners { builder.owner(owner) } else { builder }
        })
        .await;
        let document = service.client.get(service.url("/openapi.json")).send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        let security = |path: &str, method: &str| document["paths"][path][method]["security"].clone();
        let owners = if has_owners { json!([{ "token": [] }, {}]) } else { token.clone() };
        assert_eq!((security("/jobs", "get"), security("/jobs/{id}/retry", "post")), (owners.clone(), owners));
        assert_eq!(security("/jobs/{id}/logs", "get"), token);
        assert_eq!(security("/jobs/{id}/cancel", "post"), Value::Null);
        service.stop().await;
    }
}
