//! A service with the dashboard, built from the packed crates. It requests its own dashboard and prints the status line.

use async_endpoints::{Access, AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const ECHO: JobType<u64, u64> = JobType::new("Echo");

async fn echo(ctx: JobContext<u64>) -> Result<u64, JobError> {
    Ok(*ctx.request())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/api/echo", ECHO))
        .handler(ECHO, echo)
        .access(Access::loopback())
        .build()?;
    let app = axum::Router::new().merge(endpoints.job_routes()).merge(endpoints.dashboard_routes());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { endpoints.serve(listener, app).await });

    let mut connection = BufReader::new(TcpStream::connect(address).await?);
    connection.write_all(format!("GET /dashboard HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut status = String::new();
    connection.read_line(&mut status).await?;
    print!("{status}");
    Ok(())
}
