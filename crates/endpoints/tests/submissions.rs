//! Extensions of an application: validators, layers and response hooks.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, Endpoint, JobContext, JobDocument, JobType, Priority, Problem, Responses, Submission, async_trait,
    axum::{
        body::Body,
        extract::{Extension, Request},
        http::{HeaderValue, StatusCode, request::Parts},
        middleware::{self, Next},
        response::{IntoResponse, Response},
    },
};
use async_endpoints_testkit::FlakyStore;
use serde_json::{Value, json};
use support::{Service, quick, store};

#[derive(serde::Deserialize)]
struct Stay {
    nights: u32,
}

const BOOK: JobType<Stay, Value> = JobType::new("Book");
const NOTHING: JobType<(), ()> = JobType::new("Nothing");

#[derive(Clone)]
struct User(&'static str);

/// Returns what the handler sees, which shows what was stored.
async fn book(ctx: JobContext<Stay>) -> Result<Value, async_endpoints::JobError> {
    Ok(json!({
        "nights": ctx.request().nights,
        "user": ctx.headers().filter(|(name, _)| *name == "x-user-id").map(|(_, value)| value).collect::<Vec<_>>(),
        "hotel": ctx.path_param("hotel"),
        "dry": ctx.query_param("dry"),
    }))
}

async fn check(stay: Submission<Stay>) -> Result<Submission<Stay>, Response> {
    assert!(stay.request().nights != 99, "this validator panics");
    if stay.header("x-blocked").is_some() {
        return Err((StatusCode::IM_A_TEAPOT, "no").into_response());
    }
    let user = stay.extensions().get::<User>().map_or("unknown", |user| user.0);
    match (stay.request().nights, stay.path_param("hotel"), stay.query_param("dry")) {
        (0, ..) => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "NO_NIGHTS", "A stay has nights");
            Err(problem.with_detail("nights: 0").into_response())
        }
        (_, Some("full"), _) => Err(StatusCode::CONFLICT.into_response()),
        (_, _, Some("later")) => Ok(stay.delay(Duration::from_secs(3600))),
        (8.., ..) => Ok(stay.priority(Priority::LOWEST).with_header("X-User-Id", user)),
        _ => Ok(stay.with_header("X-User-Id", user)),
    }
}

async fn service() -> Service {
    Service::start(|builder| {
        let layers =
            |endpoint: Endpoint<_, _>| endpoint.layer(middleware::from_fn(limit)).layer(Extension(User("ada")));
        builder
            .endpoint(layers(Endpoint::post("/hotels/{hotel}", BOOK).validate(check)))
            .endpoint(Endpoint::put("/hotels/{hotel}", BOOK))
            .endpoint(Endpoint::delete("/nothing", NOTHING).validate(never))
            .handler(BOOK, book)
            .handler(NOTHING, async |_: JobContext<()>| Ok(()))
    })
    .await
}

/// A layer of the application that reads an extension of an outer layer.
async fn limit(Extension(User(name)): Extension<User>, request: Request<Body>, next: Next) -> Response {
    if request.headers().contains_key("x-too-many") {
        return (StatusCode::TOO_MANY_REQUESTS, name).into_response();
    }
    next.run(request).await
}

async fn count(service: &Service) -> u64 {
    let stats = service.endpoints.store().stats(&Default::default()).await.unwrap();
    stats.types.iter().flat_map(|kind| kind.counts).sum()
}

#[tokio::test]
async fn validator_response_is_sent_and_nothing_stored() {
    let service = service().await;
    let send = async |path: &str, body: Value, header: Option<&'static str>| {
        let mut request = service.client.post(service.url(path)).json(&body);
        if let Some(name) = header {
            request = request.header(name, "1");
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, problem) = send("/hotels/x", json!({"nights": 0}), None).await;
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, &problem["code"], &problem["detail"]), (422, &json!("NO_NIGHTS"), &json!("nights: 0")));
    assert_eq!(send("/hotels/full", json!({"nights": 1}), None).await.0, 409);
    assert_eq!(send("/hotels/x", json!({"nights": 1}), Some("x-blocked")).await, (418, "no".to_owned()));
    assert_eq!(send("/hotels/x", json!({"nights": 1}), Some("x-too-many")).await, (429, "ada".to_owned()));
    let (status, shape) = send("/hotels/x", json!({"nights": "one"}), None).await;
    assert!(status == 422 && shape.contains("nights: invalid type"), "{status} {shape}");
    let (status, internal) = send("/hotels/x", json!({"nights": 99}), None).await;
    assert!(status == 500 && internal.contains("INTERNAL_ERROR"), "{status} {internal}");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let refused = service.client.delete(service.url("/nothing")).header("x-no", "1").header("traceparent", trace);
    let refused = refused.send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["vary"].to_str().unwrap()), (403, "Prefer"));
    assert_eq!(refused.json::<Value>().await.unwrap()["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(count(&service).await, 0);
    assert_eq!(service.client.delete(service.url("/nothing")).send().await.unwrap().status(), 202);
    service.stop().await;
}

#[tokio::test]
async fn validator_sets_priority_delay_and_headers() {
    let service = service().await;
    let done = async |path: &str, nights: u32| {
        let id = service.submit(path, json!({"nights": nights})).await;
        service.ended(id).await
    };
    let job = done("/hotels/x?dry=1", 2).await;
    assert_eq!(job["result"], json!({"nights": 2, "user": ["ada"], "hotel": "x", "dry": "1"}));
    assert_eq!((&job["priority"], done("/hotels/x", 8).await["priority"].as_u64()), (&json!(4), Some(0)));
    let later = service.post("/hotels/x?dry=later", json!({"nights": 1})).await.json::<Value>().await.unwrap();
    assert_eq!((&later["status"], &later["waiting"]["reason"]), (&json!("Scheduled"), &json!("delayed")));
    // The validator's header replaces the client's.
    let spoofed = service.client.post(service.url("/hotels/x")).json(&json!({"nights": 1})).header("x-user-id", "eve");
    let id = spoofed.send().await.unwrap().json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(service.ended(id).await["result"]["user"], json!(["ada"]));
    // Another method of the same path has neither validator nor layer.
    let other = service.client.put(service.url("/hotels/full")).json(&json!({"nights": 0})).header("x-too-many", "1");
    assert_eq!(other.send().await.unwrap().status(), 202);
    service.stop().await;
}

async fn never(nothing: Submission<()>) -> Result<Submission<()>, Problem> {
    match nothing.header("x-no") {
        Some(_) => Err(Problem::new(StatusCode::FORBIDDEN, "NO", "Not this one")),
        None => Ok(nothing),
    }
}

/// Replaces every response.
struct Own;

#[async_trait]
impl Responses for Own {
    async fn submitted(&self, _: &Parts, job: &JobDocument<'_>, mut answer: Response) -> Response {
        tokio::task::yield_now().await;
        assert_ne!(job.view().name.as_str(), "Nothing", "this hook panics");
        answer.headers_mut().insert("x-processing-time", HeaderValue::from_static("now"));
        answer
    }

    async fn status(&self, _: &Parts, job: Result<&JobDocument<'_>, &Problem>, answer: Response) -> Response {
        match job {
            Ok(job) => {
                let text = serde_json::to_string(&json!({ "data": job })).unwrap();
                (answer.status(), text).into_response()
            }
            Err(problem) => (StatusCode::NOT_FOUND, problem.code().to_owned()).into_response(),
        }
    }

    async fn submission_error(&self, request: &Parts, problem: &Problem, _: Response) -> Response {
        (problem.status(), format!("own: {} {} {:?}", request.method, problem.code(), problem.detail())).into_response()
    }

    async fn internal_error(&self, _: &Parts, problem: &Problem, _: Response) -> Response {
        (StatusCode::BAD_GATEWAY, format!("internal: {}", problem.code())).into_response()
    }
}

#[tokio::test]
async fn hooks_replace_every_response() {
    let inner = store();
    let flaky = Arc::new(FlakyStore::new(Arc::new(inner.clone())));
    let endpoints = async_endpoints::AsyncEndpoints::builder(flaky.clone())
        .options(quick())
        .responses(Own)
        .endpoint(Endpoint::post("/hotels/{hotel}", BOOK).validate(check))
        .endpoint(Endpoint::post("/nothing", NOTHING))
        .endpoint(Endpoint::delete("/nothing", NOTHING).validate(never))
        .build()
        .unwrap();
    let service = Service::serve(inner, endpoints).await;
    let read = async |response: reqwest::Response| (response.status().as_u16(), response.text().await.unwrap());
    let submitted = service.post("/hotels/x", json!({"nights": 1})).await;
    assert_eq!(submitted.status(), 202);
    assert_eq!(submitted.headers()["x-processing-time"], "now");
    let location = submitted.headers()["location"].to_str().unwrap().to_owned();
    let get = async |path: &str| read(service.client.get(service.url(path)).send().await.unwrap()).await;
    let (status, text) = get(&location).await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &body["data"]["links"]["self"]), (200, &json!(location)));
    assert_eq!(get("/jobs/7").await, (404, "JOB_NOT_FOUND".to_owned()));
    let wrong = read(service.post("/hotels/x", json!({"nights": "one"})).await).await;
    assert_eq!(wrong.0, 422);
    assert!(wrong.1.starts_with("own: POST INVALID_REQUEST Some(\"nights: invalid type"), "{}", wrong.1);
    let problem = read(service.client.delete(service.url("/nothing")).header("x-no", "1").send().await.unwrap()).await;
    assert_eq!(problem, (403, "own: DELETE NO None".to_owned()), "a validator's problem passes the hook");
    let own = read(service.post("/hotels/full", json!({"nights": 1})).await).await;
    assert_eq!(own, (409, String::new()), "a validator's other response does not");
    let panicked = read(service.post("/hotels/x", json!({"nights": 99})).await).await;
    assert_eq!(panicked, (502, "internal: INTERNAL_ERROR".to_owned()));
    let stored = service.post("/nothing", Value::Null).await;
    assert_eq!(stored.status(), 202, "a stored job is reported although the hook panics");
    assert_eq!(stored.headers()["location"], format!("/jobs/{}", stored.headers()["x-async-job-id"].to_str().unwrap()));
    flaky.outage(true);
    assert_eq!(get(&location).await, (502, "internal: STORE_UNAVAILABLE".to_owned()));
    let away = read(service.post("/hotels/x", json!({"nights": 1})).await).await;
    assert!(away.0 == 503 && away.1.starts_with("own: POST STORE_UNAVAILABLE"), "{}", away.1);
    flaky.outage(false);
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stalled_body_times_out_or_is_ignored() {
    let store = store();
    let endpoints = support::builder(&store).endpoint(Endpoint::post("/nothing", NOTHING)).build().unwrap();
    let id = endpoints.submit(NOTHING, ()).await.unwrap().job.id;
    for (path, expected) in [("/nothing".to_owned(), 408), (format!("/jobs/{id}/cancel"), 200)] {
        let endless = futures_util::stream::pending::<Result<&[u8], std::io::Error>>();
        let request = Request::post(path).body(Body::from_stream(endless)).unwrap();
        let response = tower_service::Service::call(&mut support::routes(&endpoints), request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
    }
}

#[tokio::test]
async fn submit_from_code_sets_owner() {
    let service = Service::start(|builder| {
        let owner =
            |request: &Parts| request.headers.get("x-user").and_then(|user| user.to_str().ok()).map(str::to_owned);
        builder.access(Access::closed()).owner(owner).endpoint(Endpoint::post("/nothing", NOTHING))
    })
    .await;
    let id = service.endpoints.submit(NOTHING, ()).owner("ada").await.unwrap().job.id;
    for (user, expected) in [("ada", 200), ("bob", 404)] {
        let request = service.client.get(service.url(&format!("/jobs/{id}"))).header("x-user", user);
        assert_eq!(request.send().await.unwrap().status(), expected, "{user}");
    }
    service.stop().await;
}
