//! `/metrics`, `/metrics/jobs` and `stats`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod losses;
mod page;
mod routes;
mod series;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobError, JobType, Submission, Telemetry, axum::response::Response,
};
use reqwest::StatusCode;
use support::{PATIENCE, Service, routes, store};

const WORK: JobType<u32, u32> = JobType::new("Work");
const IDLE: JobType<(), ()> = JobType::new("Idle");

const TEXT: &str = "text/plain";
const OPENMETRICS: &str = "application/openmetrics-text";

/// Values by series: name and labels.
type Samples = BTreeMap<String, f64>;

fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let line = line.split(" # ").next().unwrap();
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or(f64::NAN))
    };
    lines.map(sample).collect()
}

/// 0 completes, 1 fails finally, 2 fails once, 3 panics once, 4 waits for its cancellation.
async fn work(ctx: JobContext<u32>) -> Result<u32, JobError> {
    match (ctx.request(), ctx.attempt()) {
        (1, _) => Err(JobError::permanent("BROKEN", "It is broken.")),
        (2, 1) => Err("not yet")?,
        (3, 1) => panic!("not yet either"),
        (4, _) => {
            ctx.cancellation().cancelled().await;
            Err(JobError::canceled())
        }
        (n, _) => Ok(*n),
    }
}

/// A validator that panics on 5.
async fn check(work: Submission<u32>) -> Result<Submission<u32>, Response> {
    assert_ne!(*work.request(), 5);
    Ok(work)
}

fn telemetry() -> Telemetry {
    Telemetry::builder().build().unwrap()
}

async fn service(telemetry: &Telemetry) -> Service {
    let store = store();
    let endpoints = support::builder(&store)
        .telemetry(telemetry)
        .endpoint(Endpoint::post("/work", WORK).validate(check))
        .endpoint(Endpoint::post("/idle", IDLE))
        .handler(WORK, work)
        .build()
        .unwrap();
    let app = routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

/// Serves the monitoring routes alone. Returns their URL.
async fn serve_monitoring(endpoints: &AsyncEndpoints) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = endpoints.monitoring_routes::<()>().into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// `GET /metrics` under a base URL.
async fn scrape(url: &str, accept: &str) -> String {
    let client = reqwest::Client::new();
    let response = client.get(format!("{url}/metrics")).header("accept", accept).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.text().await.unwrap()
}

/// Scrapes until the condition holds: a settlement is counted a moment after the job's end can be read.
async fn scrape_until(url: &str, accept: &str, condition: impl Fn(&str) -> bool) -> String {
    let scrapes = async {
        loop {
            let text = scrape(url, accept).await;
            if condition(&text) {
                break text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, scrapes).await.unwrap()
}
