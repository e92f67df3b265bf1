//! The servers of the bench: the product, axum alone, and a sink for telemetry.

use std::{future::Future, io, sync::Arc, time::Duration};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, MemoryStore, Options, PostgresStore, RedisStore, SqliteStore, Store,
    axum::{
        self, Router,
        body::to_bytes,
        extract::Request,
        http::StatusCode,
        response::{IntoResponse, Response},
        routing::post,
    },
};
use bytes::Bytes;
use tokio::{
    runtime::Runtime,
    sync::oneshot::{self, Receiver},
};

use crate::{
    half_load, operated,
    orders::{ORDERS, Order, RUN, WAIT, WAITING, listen},
    report::Result,
    telemetry,
};

/// The constant answer of axum alone: a job document as the product writes it. Both servers send equally many bytes, so
/// the difference is the cost of a job.
const ANSWER: &str = concat!(
    r#"{"id":"01a20320-ff19-70f3-bf41-f26409de69a3","name":"Run","status":"Queued","attempt":0,"retryCount":0,"l"#,
    r#"ossCount":0,"maxRetries":3,"priority":4,"version":1,"createdAt":"2026-11-22T12:49:32.954254Z","scheduledA"#,
    r#"t":null,"startedAt":null,"completedAt":null,"lastUpdatedAt":"2026-11-22T12:49:32.954254Z","expiresAt":nul"#,
    r#"l,"cancelRequestedAt":null,"progress":null,"result":null,"error":null,"attempts":[],"waiting":{"reason":""#,
    r#"queued","ahead":0,"until":null},"retryOf":null,"retriedBy":null,"traceId":"0af7651916cd43dd8448eb211c8031"#,
    r#"9c","links":{"self":"/jobs/01a20320-ff19-70f3-bf41-f26409de69a3","events":"/jobs/01a20320-ff19-70f3-bf41-"#,
    r#"f26409de69a3/events","cancel":"/jobs/01a20320-ff19-70f3-bf41-f26409de69a3/cancel","logs":"/jobs/01a20320-"#,
    r#"ff19-70f3-bf41-f26409de69a3/logs","result":"/jobs/01a20320-ff19-70f3-bf41-f26409de69a3/result"}}"#,
);
const LOCATION: &str = "/jobs/01a20320-ff19-70f3-bf41-f26409de69a3";
/// The headers of `ANSWER`.
const HEADERS: [(&str, &str); 8] = [
    ("content-type", "application/json"),
    ("etag", "\"1\""),
    ("retry-after", "1"),
    ("vary", "Prefer"),
    ("location", LOCATION),
    ("operation-location", LOCATION),
    ("x-async-job-id", "01a20320-ff19-70f3-bf41-f26409de69a3"),
    ("x-request-id", "01a20320-ff18-7a51-9c3e-5d0b7e6f4a21"),
];
/// Maximum size of a request in bytes, as in the product.
const LIMIT: usize = 1 << 20;

/// Serves until standard input closes, which the bench does when it drops the server or exits.
pub(crate) fn run(runtime: &Runtime, what: &[String]) -> Result<()> {
    let args: Vec<&str> = what.iter().map(String::as_str).collect();
    let memory = || Arc::new(MemoryStore::new());
    runtime.block_on(async {
        match *args {
            ["sink"] => until_closed(sink()).await?,
            ["jobs", step, jobs] => telemetry::measure(step, jobs.parse()?).await?,
            ["paced", telemetry, url, rate, seconds] => {
                half_load::measure(telemetry == "on", url, rate.parse()?, seconds.parse()?).await?;
            }
            ["operated", store, jobs, load] => until_closed(operated::serve(store, jobs.parse()?, load).await?).await?,
            ["bare"] => until_closed(bare()).await?,
            ["accepting"] => until_closed(endpoints(memory(), false)?).await?,
            ["endpoints"] => until_closed(endpoints(memory(), true)?).await?,
            ["sqlite", file] => until_closed(endpoints(Arc::new(SqliteStore::open(file).await?), true)?).await?,
            ["redis", url] => until_closed(endpoints(Arc::new(RedisStore::open(url).await?), true)?).await?,
            ["postgres", url] => until_closed(endpoints(Arc::new(PostgresStore::open(url).await?), true)?).await?,
            _ => return Err(format!("unknown server {what:?}").into()),
        }
        Ok(())
    })
}

async fn until_closed(serving: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        served = serving => served,
        _ = input_closed() => Ok(()),
    }
}

/// Reads standard input on a separate thread, because the read cannot be canceled.
fn input_closed() -> Receiver<()> {
    let (send, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = send.send(());
    });
    closed
}

async fn bare() -> io::Result<()> {
    axum::serve(listen().await?, Router::new().route(ORDERS, post(accept))).await
}

/// Answers every request with 200, as an OTLP collector does.
async fn sink() -> io::Result<()> {
    axum::serve(listen().await?, Router::new().fallback(async |_: Bytes| StatusCode::OK)).await
}

async fn accept(request: Request) -> Response {
    let Ok(body) = to_bytes(request.into_body(), LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match serde_json::from_slice::<Order>(&body) {
        Ok(order) => {
            std::hint::black_box(order);
            (StatusCode::ACCEPTED, HEADERS, ANSWER).into_response()
        }
        Err(_) => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    }
}

/// The product. Runs jobs if `run` is set.
fn endpoints(
    store: Arc<dyn Store>,
    run: bool,
) -> std::result::Result<impl Future<Output = io::Result<()>>, async_endpoints::BuildError> {
    let options = Options {
        // The bench measures accepted jobs only, however far the worker falls behind.
        max_queue_size: u64::MAX,
        // Keeps memory constant.
        retention: Duration::from_secs(1),
        ..Options::default()
    };
    let mut builder = AsyncEndpoints::builder(store)
        .options(options)
        .endpoint(Endpoint::post(ORDERS, RUN))
        .endpoint(Endpoint::post(WAITING, WAIT));
    if run {
        builder = builder.handler(RUN, async |_: JobContext<Order>| Ok(()));
    }
    let endpoints = builder.build()?;
    let app = Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    Ok(async move { endpoints.serve(listen().await?, app).await })
}
