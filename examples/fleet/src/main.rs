//! One service as several processes: one accepts jobs over HTTP, two run them, and Redis is all that they share.
//!
//! ```console
//! $ cargo run -p async-endpoints-fleet
//! worker 41234 takes jobs
//! worker 41235 takes jobs
//! listening on http://127.0.0.1:8080
//! ```
//!
//! That starts all of it: a Redis server of its own, unless `REDIS_URL` names one, and this same program once as `api` and
//! twice as `worker`. In production each is a service unit or a container of its own: see `docs/deployment.md`.
//!
//! ```console
//! $ JOB=localhost:8080/jobs/$(curl -s localhost:8080/api/print --json '{"pages": 100}' | jq -r .id)
//! $ curl -s $JOB | jq -c '{status, attempt, message: .progress.message}'
//! {"status":"InProgress","attempt":1,"message":"by worker 41235"}
//! $ kill -9 41235; sleep 10; curl -s $JOB | jq -c '{status, attempt, message: .progress.message}'
//! {"status":"InProgress","attempt":2,"message":"by worker 41234"}
//! ```

mod start;

use std::time::Duration;

use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobError, JobType, RedisStore};
use serde::{Deserialize, Serialize};

type Failed = Box<dyn std::error::Error>;

#[derive(Deserialize, Serialize)]
struct Order {
    pages: u64,
}

#[derive(Serialize)]
struct Printed {
    pages: u64,
}

/// What both kinds of process agree on: in larger services, a library of its own.
const PRINT: JobType<Order, Printed> = JobType::new("Print");

async fn print(ctx: JobContext<Order>) -> Result<Printed, JobError> {
    let pages = ctx.request().pages;
    ctx.progress().message(format!("by worker {}", std::process::id()));
    for page in 1..=pages {
        ctx.check_canceled()?;
        tokio::time::sleep(Duration::from_millis(200)).await; // the slow work
        ctx.progress().set(page, pages);
    }
    Ok(Printed { pages })
}

/// Accepts, and runs nothing.
async fn api(url: &str, address: &str) -> Result<(), Failed> {
    let endpoints =
        AsyncEndpoints::builder(RedisStore::open(url).await?).endpoint(Endpoint::post("/api/print", PRINT)).build()?;
    let app = axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}

/// Runs, and accepts nothing.
async fn worker(url: &str) -> Result<(), Failed> {
    let endpoints = AsyncEndpoints::builder(RedisStore::open(url).await?).handler(PRINT, print).build()?;
    println!("worker {} takes jobs", std::process::id());
    Ok(endpoints.run().await?)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let url = || std::env::var("REDIS_URL").map_err(|_| "REDIS_URL names the server");
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api", address] => api(&url()?, address).await,
        ["worker"] => worker(&url()?).await,
        [] => start::everything("127.0.0.1:8080").await,
        [address] => start::everything(address).await,
        _ => Err("async-endpoints-fleet [ADDRESS] | api ADDRESS | worker".into()),
    }
}
