//! Routes under a prefix, in a router with state, and behind an application's layers.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{
    AsyncEndpoints, BuildError, Endpoint, JobContext, JobType, Options,
    axum::{
        Router,
        extract::{Request, State},
        http::StatusCode,
        middleware::{self, Next},
        response::{IntoResponse, Response},
        routing::get,
    },
};
use serde_json::{Value, json};
use support::{Service, TestStore, quick, routes, store};

const ECHO: JobType<Value, Value> = JobType::new("Echo");

fn endpoints(store: &TestStore, options: Options) -> AsyncEndpoints {
    let builder = support::builder(store).options(options).endpoint(Endpoint::post("/echo/{what}", ECHO));
    builder.handler(ECHO, async |ctx: JobContext<Value>| Ok(json!(ctx.path_param("what")))).build().unwrap()
}

async fn serve(options: Options, mount: impl FnOnce(&AsyncEndpoints) -> Router) -> Service {
    let store = store();
    let endpoints = endpoints(&store, options);
    let app = mount(&endpoints);
    Service::serve_app(store, endpoints, app).await
}

/// Submits a job and checks all links of the responses.
async fn check(service: &Service, submit: &str, base: &str) {
    let response = service.client.post(service.url(submit)).json(&json!(1)).send().await.unwrap();
    assert_eq!(response.status(), 202, "{submit}");
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let (location, operation) = (header("location"), header("operation-location"));
    let job: Value = response.json().await.unwrap();
    let own = format!("{base}/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!((&location, &operation), (&own, &own));
    let links = job["links"].as_object().unwrap();
    for (name, link) in links {
        let end = if name == "self" { String::new() } else { format!("/{name}") };
        assert_eq!(link, &json!(format!("{own}{end}")));
    }
    let done = service.client.get(service.url(&format!("{own}?wait=30"))).send().await.unwrap();
    let done: Value = done.json().await.unwrap();
    assert_eq!((&done["status"], &done["result"]), (&json!("Completed"), &json!("x")));
    assert_eq!(&done["links"], &job["links"]);
    let document = service.client.get(service.url(&format!("{base}/openapi.json"))).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["servers"][0]["url"], if base.is_empty() { "/" } else { base });
    assert!(document["paths"]["/echo/{what}"]["post"].is_object());
    assert_eq!(document["openapi"], "3.1.0");
    let page = service.client.get(service.url(&format!("{base}/jobs"))).send().await.unwrap();
    assert_eq!(page.json::<Value>().await.unwrap()["jobs"][0]["links"], job["links"]);
}

#[tokio::test]
async fn nested_routes_carry_prefix() {
    let once = serve(quick(), |endpoints| Router::new().nest("/v1", routes(endpoints))).await;
    check(&once, "/v1/echo/x", "/v1").await;
    once.stop().await;
    let twice = serve(quick(), |e| Router::new().nest("/api", Router::new().nest("/v1", routes(e)))).await;
    check(&twice, "/api/v1/echo/x", "/api/v1").await;
    twice.stop().await;
    let tenants = serve(quick(), |e| Router::new().nest("/tenants/{id}", routes(e))).await;
    check(&tenants, "/tenants/acme%20inc/echo/x", "/tenants/acme%20inc").await;
    tenants.stop().await;
}

#[tokio::test]
async fn routes_merge_into_router_with_state() {
    #[derive(Clone)]
    struct Greeting(&'static str);
    let service = serve(quick(), |endpoints| {
        Router::new()
            .route("/hello", get(async |State(Greeting(text)): State<Greeting>| text))
            .merge(endpoints.submit_routes())
            .merge(endpoints.job_routes())
            .with_state(Greeting("hello"))
    })
    .await;
    check(&service, "/echo/x", "").await;
    let hello = service.client.get(service.url("/hello")).send().await.unwrap();
    assert_eq!(hello.text().await.unwrap(), "hello");
    service.stop().await;
}

#[tokio::test]
async fn base_path_sets_location_of_jobs() {
    let options = Options { base_path: Some("/operations".to_owned()), ..quick() };
    let service = serve(options, |endpoints| {
        Router::new().nest("/api", endpoints.submit_routes()).nest("/operations", endpoints.job_routes())
    })
    .await;
    let response = service.client.post(service.url("/api/echo/x")).json(&json!(1)).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("/operations/jobs/"), "{location}");
    assert_eq!(service.client.get(service.url(&location)).send().await.unwrap().status(), 200);
    service.stop().await;
}

#[tokio::test]
async fn base_path_is_the_prefix_that_a_proxy_removes() {
    let options = Options { base_path: Some("/shop".to_owned()), ..quick() };
    let service = serve(options, |e| routes(e).merge(e.monitoring_routes())).await;
    let response = service.client.post(service.url("/echo/x")).json(&json!(1)).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/shop/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(job["links"]["result"], format!("{location}/result"));
    let as_proxied = location.strip_prefix("/shop").unwrap();
    let read: Value = service.client.get(service.url(as_proxied)).send().await.unwrap().json().await.unwrap();
    assert_eq!(read["links"], job["links"]);
    let document = service.client.get(service.url("/openapi.json")).send().await.unwrap();
    assert_eq!(document.json::<Value>().await.unwrap()["servers"][0]["url"], "/shop");
    let new = json!({ "action": "retry", "filter": {} });
    let preview = service.client.post(service.url("/ops/bulk/preview")).json(&new).send().await.unwrap();
    let preview: Value = preview.json().await.unwrap();
    let start = json!({ "preview": preview["id"] });
    let started = service.client.post(service.url("/ops/bulk")).json(&start).send().await.unwrap();
    assert_eq!(started.headers()["location"], format!("/shop/ops/bulk/{}", preview["id"].as_str().unwrap()));
    service.stop().await;
}

#[tokio::test]
async fn application_layer_protects_routes() {
    async fn authenticate(request: Request, next: Next) -> Response {
        match request.headers().get("x-key") {
            Some(key) if key == "good" => next.run(request).await,
            _ => (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
        }
    }
    let service = serve(quick(), |e| routes(e).layer(middleware::from_fn(authenticate))).await;
    for path in ["/jobs", "/openapi.json", "/jobs/x/events"] {
        let refused = service.client.get(service.url(path)).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.text().await.unwrap().as_str()), (401, "who are you?"));
    }
    let submit = service.client.post(service.url("/echo/x")).json(&json!(1));
    assert_eq!(submit.try_clone().unwrap().send().await.unwrap().status(), 401);
    assert_eq!(submit.header("x-key", "good").send().await.unwrap().status(), 202);
    service.stop().await;
}

#[tokio::test]
async fn jobs_path_moves_the_job_routes() {
    let store = store();
    let builder = support::builder(&store).jobs_path("/api/status").endpoint(Endpoint::post("/jobs", ECHO));
    let endpoints = builder.handler(ECHO, async |_: JobContext<Value>| Ok(json!("done"))).build().unwrap();
    let app = Router::new().nest("/v1", routes(&endpoints));
    let service = Service::serve_app(store, endpoints, app).await;
    let get = async |path: &str| service.client.get(service.url(path)).send().await.unwrap();
    let job: Value = service.post("/v1/jobs", json!(1)).await.json().await.unwrap();
    let own = format!("/v1/api/status/{}", job["id"].as_str().unwrap());
    let links =
        ["self", "events", "cancel", "logs", "result"].map(|name| job["links"][name].as_str().unwrap().to_owned());
    let below = ["", "/events", "/cancel", "/logs", "/result"].map(|end| format!("{own}{end}"));
    assert_eq!(links, below);
    let done: Value = get(&format!("{own}?wait=30")).await.json().await.unwrap();
    assert_eq!((&done["result"], &done["links"]), (&json!("done"), &job["links"]));
    assert_eq!(get(&links[4]).await.text().await.unwrap(), "\"done\"");
    let page: Value = get("/v1/api/status").await.json().await.unwrap();
    assert_eq!(page["jobs"][0]["links"], job["links"]);
    assert_eq!(get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).await.status(), 404);
    let document: Value = get("/v1/openapi.json").await.json().await.unwrap();
    assert!(document["paths"]["/api/status/{id}/result"]["get"].is_object());
    assert!(document["paths"]["/jobs"]["get"].is_null() && document["paths"]["/jobs"]["post"].is_object());
    service.stop().await;
}

#[test]
fn build_rejects_invalid_jobs_path() {
    for bad in ["", "/", "status", "/status/", "/a b", "/{tenant}/status", "/health", "/metrics"] {
        let error = support::builder(&store()).jobs_path(bad).build().unwrap_err();
        assert!(matches!(&error, BuildError::Options(options) if options.name == "jobs_path"), "{bad}: {error}");
    }
    let builder = support::builder(&store()).jobs_path("/status");
    let error = builder.endpoint(Endpoint::post("/status/{kind}", ECHO)).build().unwrap_err().to_string();
    assert!(error.ends_with("job_routes() reserves the path for GET /status/{id}, choose another one"), "{error}");
}

#[test]
fn build_rejects_invalid_base_path() {
    for bad in ["", "/", "v1", "/v1/", "//evil.example", "/a b", "/a?b"] {
        let options = Options { base_path: Some(bad.to_owned()), ..quick() };
        let error = support::builder(&store()).options(options).build().unwrap_err();
        assert!(matches!(&error, BuildError::Options(options) if options.name == "base_path"), "{bad}: {error}");
    }
}
