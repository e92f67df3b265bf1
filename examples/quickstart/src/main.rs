//! The smallest service: one endpoint, one handler, in one process.

use std::time::Duration;

use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore};

#[derive(serde::Deserialize)]
struct Order {
    pages: u64,
}

#[derive(serde::Serialize)]
struct Printed {
    pages: u64,
}

const PRINT: JobType<Order, Printed> = JobType::new("Print");

async fn print(ctx: JobContext<Order>) -> Result<Printed, JobError> {
    let pages = ctx.request().pages;
    for page in 1..=pages {
        ctx.check_canceled()?;
        tokio::time::sleep(Duration::from_millis(200)).await; // the slow work
        ctx.progress().set(page, pages);
    }
    Ok(Printed { pages })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/api/print", PRINT))
        .handler(PRINT, print)
        .build()?;
    let app = axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
