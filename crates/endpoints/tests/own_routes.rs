//! Jobs that a route of the application submits.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    AsyncEndpoints, Builder, JobContext, JobError, JobType, Problem,
    axum::{
        Router,
        extract::State,
        http::{StatusCode, request::Parts},
        routing::post,
    },
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::{Service, builder, routes, store};

const BOOK: JobType<u32, Value> = JobType::new("Book");

/// Returns what it sees of the request.
async fn book(ctx: JobContext<u32>) -> Result<Value, JobError> {
    Ok(json!({
        "nights": ctx.request(),
        "user": ctx.header("x-user-id"),
        "secret": ctx.header("cookie"),
        "hotel": ctx.path_param("hotel"),
        "query": ctx.query_params().collect::<Vec<_>>(),
    }))
}

/// The route of the application.
async fn reserve(
    State(endpoints): State<AsyncEndpoints>,
    parts: Parts,
    nights: String,
) -> Result<(StatusCode, String), Problem> {
    let accepted = endpoints.submit(BOOK, nights.parse().unwrap()).from_parts(&parts).await?;
    let body = json!({ "id": accepted.job.id, "replayed": accepted.replayed });
    Ok((StatusCode::ACCEPTED, body.to_string()))
}

async fn service(build: impl FnOnce(Builder) -> Builder) -> Service {
    let store = store();
    let endpoints = build(builder(&store)).handler(BOOK, book).build().unwrap();
    let own = Router::new().route("/hotels/{hotel}", post(reserve)).with_state(endpoints.clone());
    let app = routes(&endpoints).merge(own);
    Service::serve_app(store, endpoints, app).await
}

fn request(service: &Service, path: &str, nights: u32) -> RequestBuilder {
    service.client.post(service.url(path)).json(&nights)
}

async fn accepted(request: RequestBuilder) -> (async_endpoints::JobId, bool) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let body: Value = response.json().await.unwrap();
    (body["id"].as_str().unwrap().parse().unwrap(), body["replayed"].as_bool().unwrap())
}

#[tokio::test]
async fn job_has_the_parts_of_the_request() {
    let service = service(|builder| builder).await;
    let request = request(&service, "/hotels/sea%20view?tag=a&tag=b", 3)
        .header("x-user-id", "7")
        .header("cookie", "secret")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let (id, _) = accepted(request).await;
    let job = service.ended(id).await;
    let seen = json!({
        "nights": 3, "user": "7", "secret": null, "hotel": "sea view", "query": [["tag", "a"], ["tag", "b"]],
    });
    assert_eq!(job["result"], seen);
    assert_eq!(job["traceId"], "0af7651916cd43dd8448eb211c80319c");
    service.stop().await;
}

#[tokio::test]
async fn key_and_id_of_the_request_identify_a_repeat() {
    let service = service(|builder| builder).await;
    let keyed = |path: &str, nights| request(&service, path, nights).header("idempotency-key", "order-7");
    let (id, replayed) = accepted(keyed("/hotels/x", 3)).await;
    assert!(!replayed);
    assert_eq!(accepted(keyed("/hotels/x", 3)).await, (id, true));
    for conflict in [keyed("/hotels/y", 3), keyed("/hotels/x?a=b", 3), keyed("/hotels/x", 4)] {
        let problem: Value = conflict.send().await.unwrap().json().await.unwrap();
        assert_eq!(problem["code"], "IDEMPOTENCY_CONFLICT");
    }
    let chosen = "0197a6c0-0000-7000-8000-000000000001";
    let (id, _) = accepted(request(&service, "/hotels/x", 3).header("x-async-request-id", chosen)).await;
    assert_eq!(id.to_string(), chosen);
    for (header, value) in [("idempotency-key", "a b"), ("x-async-request-id", "7")] {
        let refused = request(&service, "/hotels/x", 3).header(header, value).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: Value = refused.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().to_lowercase().contains(header), "{problem}");
    }
    service.stop().await;
}

#[tokio::test]
async fn job_belongs_to_the_owner_of_the_request() {
    let owner = |parts: &Parts| parts.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned);
    let service = service(|builder| builder.access(async_endpoints::Access::closed()).owner(owner)).await;
    let (id, _) = accepted(request(&service, "/hotels/x", 3).header("x-user", "ada")).await;
    for (user, expected) in [("ada", 200), ("bob", 404)] {
        let read = service.client.get(service.url(&format!("/jobs/{id}"))).header("x-user", user);
        assert_eq!(read.send().await.unwrap().status(), expected, "{user}");
    }
    service.stop().await;
}
