//! A handler that submits a job to another service and waits for its result.
//!
//! - The idempotency key is the id of the handler's own job. An attempt that runs again finds the job that the earlier one
//!   submitted.
//! - The handler follows the other job by server-sent events, and passes on its progress. A cancel request is passed on, too.
//! - The trace context goes along, so that both jobs belong to one trace.
//!
//! The shop and the printer are two services. Here they run in one program.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin services
//! printer on http://127.0.0.1:39205
//! listening on http://127.0.0.1:8080
//! ```
//!
//! ```console
//! $ JOB=localhost:8080/jobs/$(curl -s localhost:8080/orders --json '{"pages": 20}' | jq -r .id)
//! $ sleep 1; curl -s $JOB | jq -c '{status, percent: .progress.percent, message: .progress.message}'
//! {"status":"InProgress","percent":25,"message":"printing page 6 of 20"}
//! $ curl -s "$JOB?wait=10" | jq -c '{status, result, traceId}'
//! {"status":"Completed","result":{"pages":20,"printJob":"01a22749-d465-722c-a1dd-33f06ca58dfd"},"traceId":"bfec7e5c2482694902f778fdf6a58c44"}
//! $ curl -s localhost:39205/jobs/01a22749-d465-722c-a1dd-33f06ca58dfd | jq -c '{name, status, traceId}'
//! {"name":"Print","status":"Completed","traceId":"bfec7e5c2482694902f778fdf6a58c44"}
//! ```

use axum::Router;

/// The types of the printer's requests and results. A crate that both services use.
mod api {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Document {
        pub(crate) pages: u64,
    }

    #[derive(Serialize, Deserialize)]
    pub(crate) struct Printed {
        pub(crate) pages: u64,
    }
}

/// The service that is called.
mod printer {
    use std::time::Duration;

    use async_endpoints::{AsyncEndpoints, BuildError, Endpoint, JobContext, JobError, JobType, MemoryStore};

    use crate::api::{Document, Printed};

    const PRINT: JobType<Document, Printed> = JobType::new("Print").error_codes(&["NO_PAPER"]);

    pub(crate) fn build() -> Result<AsyncEndpoints, BuildError> {
        AsyncEndpoints::builder(MemoryStore::new())
            .endpoint(Endpoint::post("/print", PRINT))
            .handler(PRINT, print)
            .build()
    }

    async fn print(ctx: JobContext<Document>) -> Result<Printed, JobError> {
        let pages = ctx.request().pages;
        if pages > 10_000 {
            return Err(JobError::permanent("NO_PAPER", "There is not enough paper.").status(409));
        }
        for page in 1..=pages {
            ctx.check_canceled()?;
            ctx.progress().message(format!("printing page {page} of {pages}"));
            tokio::time::sleep(Duration::from_millis(100)).await; // the slow work
            ctx.progress().set(page, pages);
        }
        Ok(Printed { pages })
    }
}

/// The service that calls.
mod shop {
    use async_endpoints::{
        AsyncEndpoints, BuildError, CancellationReason, Endpoint, JobContext, JobError, JobId, JobType, MemoryStore,
        Options, Propagation, telemetry::trace::inject_headers,
    };
    use async_endpoints_client::{Client, Error, JobHandle};
    use axum::http::HeaderMap;

    use crate::api::{Document, Printed};

    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(crate) struct Delivery {
        pages: u64,
        print_job: JobId,
    }

    const ORDER: JobType<Document, Delivery> =
        JobType::new("Order").error_codes(&["PRINT_FAILED", "PRINTER_UNAVAILABLE"]);

    pub(crate) fn build(printer: Client) -> Result<AsyncEndpoints, BuildError> {
        // Attempts are part of the caller's trace, and not traces of their own with a link to it.
        let options = Options { propagation: Propagation::Child, ..Options::default() };
        AsyncEndpoints::builder(MemoryStore::new())
            .options(options)
            .endpoint(Endpoint::post("/orders", ORDER))
            .handler_with(ORDER, printer, order)
            .build()
    }

    async fn order(ctx: JobContext<Document>, printer: Client) -> Result<Delivery, JobError> {
        let job = submit(&ctx, &printer).await.map_err(failure)?;
        match ctx.cancellation().run_until_cancelled(follow(&ctx, &job)).await {
            Some(printed) => Ok(Delivery { pages: printed.map_err(failure)?.pages, print_job: job.id() }),
            None => {
                // After a timeout or in a drain, a later attempt continues to follow the job.
                if ctx.cancellation_reason() == Some(CancellationReason::Canceled) {
                    job.cancel().await.map_err(failure)?;
                }
                Err(JobError::canceled())
            }
        }
    }

    async fn submit(ctx: &JobContext<Document>, printer: &Client) -> Result<JobHandle<Printed>, Error> {
        let submission = printer.submit("/print", ctx.request()).idempotency_key(&ctx.job_id().to_string());
        let mut trace = HeaderMap::new();
        inject_headers(&mut trace);
        let headers = trace.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        headers.fold(submission, |submission, (name, value)| submission.header(name, value)).await
    }

    /// Passes the other job's progress on until it has ended.
    async fn follow(ctx: &JobContext<Document>, job: &JobHandle<Printed>) -> Result<Printed, Error> {
        let mut states = job.follow();
        while let Some(state) = states.next().await {
            let state = state?;
            ctx.progress().percent(state.percent().unwrap_or(0.0));
            ctx.progress().message(state.message().unwrap_or_default());
            if let Some(result) = state.into_result() {
                return Ok(result?);
            }
        }
        job.wait().await
    }

    /// The other job's failure is permanent. Without an answer, the attempt is retried.
    fn failure(error: Error) -> JobError {
        match &error {
            Error::Job(job) => {
                let (status, detail) = (job.problem.status, job.to_string());
                JobError::permanent("PRINT_FAILED", detail).status(status).with_source(error)
            }
            Error::Unreachable { .. } => JobError::retryable("PRINTER_UNAVAILABLE", "The printer does not answer.")
                .status(503)
                .with_source(error),
            _ => error.into(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let printer_url = format!("http://{}", inside.local_addr()?);
    println!("printer on {printer_url}");
    let printer = printer::build()?;
    let shop = shop::build(async_endpoints_client::Client::new(&printer_url)?)?;
    let printing = printer.serve(inside, Router::new().merge(printer.submit_routes()).merge(printer.job_routes()));
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let selling = shop.serve(listener, Router::new().merge(shop.submit_routes()).merge(shop.job_routes()));
    // Both drain on SIGTERM and Ctrl-C.
    tokio::try_join!(selling, printing)?;
    Ok(())
}
