//! What the servers of the bench serve: the product, and axum alone.

use std::{future::Future, io, time::Duration};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobType, MemoryStore, Options,
    axum::{
        self, Router,
        body::to_bytes,
        extract::Request,
        http::{StatusCode, header},
        response::{IntoResponse, Response},
        routing::post,
    },
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::oneshot::{self, Receiver},
};

/// Submissions to be run.
pub(crate) const ORDERS: &str = "/api/orders";
/// Submissions that wait for ever: jobs to follow.
pub(crate) const WAITING: &str = "/api/waiting";
/// What both servers read of a request: 200 bytes, as in the other benches.
pub(crate) const ORDER: &str = concat!(
    r#"{"customer":"0197a6c0-0000-7000-8000-000000000001","items":[{"article":"A-1007","count":3},"#,
    r#"{"article":"B-2210","count":1}],"express":true,"note":"leave it at the neighbour's door, they are always in"}"#,
);

/// What axum alone answers, with no header of its own but the type. Far less than a job's representation: writing that
/// is part of what a job costs.
const CONSTANT: &str = r#"{"status":"Accepted"}"#;
/// As the product reads at most.
const LIMIT: usize = 1 << 20;

const RUN: JobType<Order, ()> = JobType::new("Run");
const WAIT: JobType<Order, ()> = JobType::new("Wait");

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read, as neither server does anything with it")]
struct Order {
    customer: String,
    items: Vec<Item>,
    express: bool,
    note: String,
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read, as neither server does anything with it")]
struct Item {
    article: String,
    count: u32,
}

/// Serves until standard input closes: the bench ended, or does not need it any more.
pub(crate) fn run(runtime: &Runtime, what: &str) -> Result<(), Box<dyn std::error::Error>> {
    match what {
        "bare" => runtime.block_on(until_closed(bare()))?,
        "endpoints" => runtime.block_on(until_closed(endpoints()?))?,
        _ => return Err(format!("{what} cannot be served").into()),
    }
    Ok(())
}

async fn until_closed(serving: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        served = serving => served,
        _ = input_closed() => Ok(()),
    }
}

/// On a thread of its own, as a read of standard input cannot be given up.
fn input_closed() -> Receiver<()> {
    let (send, closed) = oneshot::channel();
    std::thread::spawn(move || {
        // A failed read is an end, too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = send.send(());
    });
    closed
}

async fn bare() -> io::Result<()> {
    axum::serve(listen().await?, Router::new().route(ORDERS, post(accept))).await
}

async fn accept(request: Request) -> Response {
    let Ok(body) = to_bytes(request.into_body(), LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match serde_json::from_slice::<Order>(&body) {
        Ok(order) => {
            std::hint::black_box(order);
            (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], CONSTANT).into_response()
        }
        Err(_) => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    }
}

fn endpoints() -> Result<impl Future<Output = io::Result<()>>, async_endpoints::BuildError> {
    let options = Options {
        // However far the worker falls behind, a submission is measured and not a refusal.
        max_queue_size: u64::MAX,
        // So that jobs go as fast as they come, and memory stays flat.
        retention: Duration::from_secs(1),
        ..Options::default()
    };
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .options(options)
        .endpoint(Endpoint::post(ORDERS, RUN))
        .handler(RUN, async |_: JobContext<Order>| Ok(()))
        .endpoint(Endpoint::post(WAITING, WAIT))
        .build()?;
    let app = Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    Ok(async move { endpoints.serve(listen().await?, app).await })
}

/// Listens, and tells the bench where.
async fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}
