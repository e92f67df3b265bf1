//! One service as several processes: an API process accepts jobs over HTTP, two workers run them, and Redis holds them.
//!
//! ```console
//! $ cargo run -p async-endpoints-fleet
//! worker 41234 claims jobs
//! worker 41235 claims jobs
//! listening on http://127.0.0.1:8080
//! ```
//!
//! The command starts a Redis server, unless `REDIS_URL` names one, and this program once as `api` and twice as `worker`. In
//! production each process is a service unit or a container: see `docs/deployment.md`. After `kill -9` the other worker
//! runs the job:
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

type Error = Box<dyn std::error::Error>;

#[derive(Deserialize, Serialize)]
struct Order {
    pages: u64,
}

#[derive(Serialize)]
struct Printed {
    pages: u64,
}

/// Shared by both kinds of process. In larger services it belongs in a library.
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

/// Accepts jobs and runs none.
async fn api(url: &str, address: &str) -> Result<(), Error> {
    let endpoints = AsyncEndpoints::builder(RedisStore::open(url).await?)
        .endpoint(Endpoint::post("/api/print", PRINT))
        .handled_elsewhere(PRINT)
        .build()?;
    let app = axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}

/// Runs jobs and accepts none.
async fn worker(url: &str) -> Result<(), Error> {
    let endpoints = AsyncEndpoints::builder(RedisStore::open(url).await?).handler(PRINT, print).build()?;
    println!("worker {} claims jobs", std::process::id());
    Ok(endpoints.run().await?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = || std::env::var("REDIS_URL").map_err(|_| "REDIS_URL is not set: expected the address of a server");
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api", address] => api(&url()?, address).await,
        ["worker"] => worker(&url()?).await,
        [] => start::everything("127.0.0.1:8080").await,
        [address] => start::everything(address).await,
        _ => Err("usage: async-endpoints-fleet [ADDRESS] | api ADDRESS | worker".into()),
    }
}
