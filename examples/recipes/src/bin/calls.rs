//! A handler that calls an external API, with time limits, a circuit breaker and the caller's trace.
//!
//! - Each call has a limit for the connection and one for the whole answer. A cancel request ends it at once.
//! - After three failures in a row the breaker opens for some seconds. Jobs then make no call: they are retried when the
//!   breaker lets a trial through. The slots of the worker stay free for other jobs.
//! - The API's refusal of a request (4xx) is permanent and no failure of the API.
//!
//! The program also contains the API, so that an outage can be tried:
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin calls
//! listening on http://127.0.0.1:8080
//! ```
//!
//! ```console
//! $ quote() { curl -s localhost:8080/api/quote -H 'Prefer: wait=1' --json "{\"currency\": \"$1\"}"; }
//! $ quote EUR | jq -c '{status, result}'
//! {"status":"Completed","result":{"rate":1.25}}
//! $ quote XYZ | jq -c '{status, error: .error | {code, detail}}'
//! {"status":"Failed","error":{"code":"UNKNOWN_CURRENCY","detail":"there is no rate for XYZ"}}
//! $ curl -s -X PUT localhost:8080/rates/outage --json true
//! $ JOB=localhost:8080/jobs/$(quote EUR | jq -r .id); sleep 5; curl -s $JOB | jq -c '[.attempts[] | .error.detail]'
//! ["The rates cannot be read.","The rates cannot be read.","The rates cannot be read.","The rates are not called for 0.2 s.","The rates cannot be read."]
//! $ curl -s -X PUT localhost:8080/rates/outage --json false
//! $ curl -s "$JOB?wait=10" | jq -c '{status, result}'
//! {"status":"Completed","result":{"rate":1.25}}
//! ```

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, DomainError, Endpoint, JobContext, JobError, JobHandler, JobType, MemoryStore, RetryPolicy,
    telemetry::trace::inject_request,
};
use axum::{Json, Router, extract::Path, http::StatusCode, routing};
use serde::{Deserialize, Serialize};

/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// How long the breaker is open.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Order {
    currency: String,
}

#[derive(Serialize)]
struct Quote {
    rate: f64,
}

/// Attempts while the breaker is open count as retries, so there are enough of them for an outage of minutes.
const QUOTE: JobType<Order, Quote> = JobType::new("Quote")
    .max_retries(100)
    .retry(RetryPolicy::exponential(Duration::from_millis(500)).cap(Duration::from_secs(10)))
    .errors::<RateError>();

#[derive(Debug, thiserror::Error)]
enum RateError {
    #[error("there is no rate for {0}")]
    UnknownCurrency(String),
    #[error("the rates cannot be read")]
    Failed(#[from] reqwest::Error),
    #[error("the circuit breaker is open for {0:?}")]
    Open(Duration),
}

impl DomainError for RateError {
    const CODES: &'static [&'static str] = &["UNKNOWN_CURRENCY", "RATES_UNAVAILABLE"];

    fn job_error(&self) -> JobError {
        let code = "RATES_UNAVAILABLE";
        match self {
            Self::UnknownCurrency(_) => JobError::permanent("UNKNOWN_CURRENCY", self.to_string()).status(422),
            Self::Failed(_) => JobError::retryable(code, "The rates cannot be read.").status(502),
            Self::Open(wait) => {
                let detail = format!("The rates are not called for {:.1} s.", wait.as_secs_f64());
                JobError::retry_after(*wait, code, detail).status(503)
            }
        }
    }
}

/// Stops the calls of an API that fails. Each process has a breaker of its own.
#[derive(Default)]
struct Breaker(Mutex<Circuit>);

#[derive(Default)]
struct Circuit {
    failures: u32,
    open_until: Option<Instant>,
}

impl Circuit {
    /// Admits a call, or returns how long to wait. After the pause one call is a trial, and the others wait for it.
    fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.open_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                self.open_until = Some(now + PAUSE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn record(&mut self, now: Instant, has_failed: bool) {
        if has_failed {
            self.failures += 1;
            self.open_until = (self.failures >= FAILURES).then_some(now + PAUSE);
        } else {
            *self = Self::default();
        }
    }
}

impl Breaker {
    async fn call<T>(&self, call: impl Future<Output = Result<T, RateError>>) -> Result<T, RateError> {
        self.with(|circuit| circuit.admit(Instant::now())).map_err(RateError::Open)?;
        let result = call.await;
        let has_failed = matches!(result, Err(RateError::Failed(_)));
        self.with(|circuit| circuit.record(Instant::now(), has_failed));
        result
    }

    fn with<T>(&self, act: impl FnOnce(&mut Circuit) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The handler.
struct Quotes {
    client: reqwest::Client,
    api: String,
    breaker: Breaker,
}

impl Quotes {
    fn new(api: String) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(5));
        // The API of this recipe is on this machine.
        Ok(Self { client: client.no_proxy().build()?, api, breaker: Breaker::default() })
    }

    async fn rate(&self, currency: &str) -> Result<f64, RateError> {
        let answer = inject_request(self.client.get(format!("{}/rates/{currency}", self.api))).send().await?;
        if answer.status().is_client_error() {
            return Err(RateError::UnknownCurrency(currency.to_owned()));
        }
        Ok(answer.error_for_status()?.json().await?)
    }
}

impl JobHandler<Order, Quote> for Quotes {
    async fn run(&self, ctx: JobContext<Order>) -> Result<Quote, JobError> {
        let call = self.breaker.call(self.rate(&ctx.request().currency));
        let rate = ctx.cancellation().run_until_cancelled(call).await.ok_or_else(JobError::canceled)??;
        Ok(Quote { rate })
    }
}

/// The external API.
fn rates() -> Router {
    let outage = Arc::new(AtomicBool::new(false));
    let set = outage.clone();
    let rate = move |Path(currency): Path<String>| async move {
        match &*currency {
            _ if outage.load(Ordering::Relaxed) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            "EUR" => Ok(Json(1.25)),
            _ => Err(StatusCode::NOT_FOUND),
        }
    };
    Router::new()
        .route("/rates/{currency}", routing::get(rate))
        .route("/rates/outage", routing::put(async move |Json(on)| set.store(on, Ordering::Relaxed)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let api = format!("http://{}", listener.local_addr()?);
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/api/quote", QUOTE))
        .handler(QUOTE, Quotes::new(api.clone())?)
        .build()?;
    let app = rates().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    println!("listening on {api}");
    Ok(endpoints.serve(listener, app).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_opens_after_failures_in_a_row_and_admits_one_trial() {
        let start = Instant::now();
        let (mut circuit, at) = (Circuit::default(), |millis| start + Duration::from_millis(millis));
        for failure in [true, true, false, true, true] {
            assert_eq!(circuit.admit(start), Ok(()));
            circuit.record(start, failure);
        }
        assert_eq!(circuit.admit(start), Ok(()), "two failures in a row");
        circuit.record(start, true);
        assert_eq!(circuit.admit(at(500)), Err(Duration::from_millis(1500)));
        assert_eq!(circuit.admit(at(2000)), Ok(()), "the trial");
        assert_eq!(circuit.admit(at(2100)), Err(Duration::from_millis(1900)), "another call during the trial");
        circuit.record(at(2200), true);
        assert_eq!(circuit.admit(at(4100)), Err(Duration::from_millis(100)));
        assert_eq!(circuit.admit(at(4200)), Ok(()));
        circuit.record(at(4300), false);
        assert_eq!(circuit.admit(at(4300)), Ok(()));
        circuit.record(at(4300), true);
        assert_eq!(circuit.admit(at(4300)), Ok(()), "the earlier failures do not count");
    }
}
