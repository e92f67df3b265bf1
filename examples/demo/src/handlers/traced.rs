//! `TracedProcess`: reads rows of the weather table, has the climate service compute something of them over HTTP, and
//! puts its answer into words. The trace of the job goes along, so that both services' lines can be found by it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_endpoints::{JobContext, JobError, JobHandler, JobType};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::{task::spawn_blocking, time::Instant};
use utoipa::ToSchema;

use super::{known_category, now};
use crate::{
    climate::{Month, Problem},
    ledger::Ledger,
    weather::{Observation, Weather},
};

pub(crate) const TRACED: JobType<TracedRequest, TracedResult> = JobType::new("TracedProcess");

/// The error of everything that goes wrong with the climate service.
const EXTERNAL_SERVICE: &str = "EXTERNAL_SERVICE";
/// For the whole call. The service takes some milliseconds.
const CALL: Duration = Duration::from_secs(10);
const LONGEST_ID: usize = 200;
const STEPS: u64 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracedRequest {
    /// The caller's name for this request, for the reader's logs: 1 to 200 characters.
    #[serde(deserialize_with = "request_id")]
    #[schema(min_length = 1, max_length = 200, example = "r-1")]
    request_id: String,
    /// One of the weather table's, such as `snow`.
    #[schema(example = "snow")]
    category: String,
}

fn request_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    match id.chars().count() {
        1..=LONGEST_ID => Ok(id),
        length => Err(de::Error::custom(format!("it has {length} characters; it has 1 to {LONGEST_ID}"))),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracedResult {
    /// A line for each place and month.
    processed_data: Vec<String>,
    processed_at: String,
    /// Of this attempt, `hh:mm:ss.fffffff`.
    execution_time: String,
}

/// The handler and what it needs.
pub(crate) struct Traced {
    weather: Arc<Weather>,
    ledger: Ledger,
    client: Client,
    url: String,
}

impl Traced {
    /// Calls the service at that address of this machine.
    pub(crate) fn new(climate: SocketAddr, weather: Arc<Weather>, ledger: Ledger) -> reqwest::Result<Self> {
        // What the environment says of proxies is not meant for neighbours in the same process.
        let client = Client::builder().no_proxy().timeout(CALL).build()?;
        Ok(Self { weather, ledger, client, url: format!("http://{climate}/monthly") })
    }

    /// SQLite blocks, so it has a thread of its own for that long.
    async fn observations(&self, category: &str) -> Result<Vec<Observation>, JobError> {
        let (weather, category) = (self.weather.clone(), category.to_owned());
        spawn_blocking(move || {
            known_category(&weather, &category)?;
            Ok(weather.select(&category, None, None)?)
        })
        .await?
    }

    async fn statistics<R>(&self, ctx: &JobContext<R>, days: &[Observation]) -> Result<Vec<Month>, JobError> {
        let mut request = self.client.post(&self.url).json(days);
        if let Some(trace) = ctx.trace() {
            request = request.header("traceparent", &trace.traceparent);
            if let Some(state) = &trace.tracestate {
                request = request.header("tracestate", state);
            }
        }
        let call = async {
            let answer = accepted(request.send().await.map_err(|error| unanswered(&error))?).await?;
            answer.json().await.map_err(|error| unanswered(&error))
        };
        // A call that is dropped closes its connection.
        ctx.cancellation().run_until_cancelled(call).await.ok_or_else(JobError::canceled)?
    }
}

impl JobHandler<TracedRequest, TracedResult> for Traced {
    async fn run(&self, ctx: JobContext<TracedRequest>) -> Result<TracedResult, JobError> {
        let _running = self.ledger.enter(ctx.job_id(), ctx.attempt());
        let (TracedRequest { request_id, category }, started) = (ctx.request(), Instant::now());
        tracing::info!(request = request_id, category, "traced process started");
        step(&ctx, 0, "reading observations");
        let observations = self.observations(category).await?;
        step(&ctx, 1, "calling the climate service");
        let months = self.statistics(&ctx, &observations).await?;
        step(&ctx, 2, "processing its answer");
        let processed_data: Vec<String> = months.iter().map(|month| in_words(month, category)).collect();
        step(&ctx, STEPS, "done");
        let (elapsed, rows) = (started.elapsed(), observations.len());
        tracing::info!(request = request_id, rows, seconds = elapsed.as_secs_f64(), "traced process completed");
        Ok(TracedResult { processed_data, processed_at: now(), execution_time: time_span(elapsed) })
    }
}

fn step<R>(ctx: &JobContext<R>, done: u64, doing: &str) {
    ctx.progress().set(done, STEPS);
    ctx.progress().message(doing);
}

/// The answer, if it is one to read on. A 4xx is an answer to what was sent, and the same would be sent again.
async fn accepted(answer: Response) -> Result<Response, JobError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let reason = answer.json().await.map(|problem: Problem| format!(": {}", problem.detail)).unwrap_or_default();
    let detail = format!("The climate service answered {status}{reason}.");
    let error = match status.is_client_error() {
        true => JobError::permanent(EXTERNAL_SERVICE, detail),
        false => JobError::retryable(EXTERNAL_SERVICE, detail),
    };
    Err(error.status(StatusCode::BAD_GATEWAY.as_u16()))
}

/// No answer came, or none that can be read.
fn unanswered(error: &reqwest::Error) -> JobError {
    tracing::warn!(error = error as &dyn std::error::Error, "the climate service gave no answer");
    let (what, status) = match error {
        error if error.is_timeout() => ("did not answer in time", StatusCode::GATEWAY_TIMEOUT),
        error if error.is_connect() => ("cannot be reached", StatusCode::BAD_GATEWAY),
        _ => ("gave no answer that can be read", StatusCode::BAD_GATEWAY),
    };
    JobError::retryable(EXTERNAL_SERVICE, format!("The climate service {what}.")).status(status.as_u16())
}

fn in_words(month: &Month, category: &str) -> String {
    let Month { location, month, days, temp_min, temp_max, temp_mean, precipitation, wind } = month;
    let plural = if *days == 1 { "" } else { "s" };
    format!(
        "{location}, {month}: {days} day{plural} of {category}, {temp_min:.1} to {temp_max:.1} °C, {temp_mean:.1} °C on average, \
         {precipitation:.1} mm, wind {wind:.1} m/s"
    )
}

/// As .NET writes a `TimeSpan`, in ticks of 100 ns. No attempt takes days, which would stand before the hours.
fn time_span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:07}", time.subsec_nanos() / 100)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::{Router, http::header::CONTENT_TYPE};
    use tokio::net::TcpListener;

    use super::*;
    use crate::climate::Climate;

    fn traced(climate: SocketAddr) -> Traced {
        let weather = Weather::open(Path::new(":memory:")).unwrap();
        Traced::new(climate, Arc::new(weather), Ledger::default()).unwrap()
    }

    fn context(category: &str) -> JobContext<TracedRequest> {
        JobContext::for_test(TracedRequest { request_id: "r-1".to_owned(), category: category.to_owned() })
    }

    /// What becomes of a job when the climate service always answers that.
    async fn when_answered(status: u16, body: &'static str) -> JobError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        let answer = move || async move { (status, [(CONTENT_TYPE, "application/json")], body) };
        let serving = tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        let error = traced(address).run(context("fog")).await.unwrap_err();
        serving.abort();
        error
    }

    #[tokio::test]
    async fn rows_go_through_the_service_and_come_back_in_words() {
        let climate = Climate::open().await.unwrap();
        let (traced, ctx) = (traced(climate.address()), context("snow"));
        let progress = ctx.progress().clone();
        let result = climate.serve_during(traced.run(ctx)).await.unwrap();
        let months = result.processed_data;
        assert!(months[0].starts_with("New York, January: "), "{months:?}");
        let days = |line: &String| line.split_once(": ")?.1.split_once(" day")?.0.parse::<u32>().ok();
        assert_eq!(months.iter().map(days).sum::<Option<u32>>(), Some(119));
        assert_eq!(progress.current().unwrap().percent, Some(100.0));
    }

    #[tokio::test]
    async fn an_unknown_category_never_reaches_the_service() {
        let climate = Climate::open().await.unwrap();
        let error = traced(climate.address()).run(context("hail")).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("UNKNOWN_CATEGORY", false));
    }

    #[tokio::test]
    async fn only_what_the_service_refuses_is_final() {
        for (status, body, retryable, says) in [
            (
                422,
                r#"{ "title": "", "status": 422, "detail": "[0]: wind is below 0" }"#,
                false,
                ": [0]: wind is below 0.",
            ),
            (404, "not found", false, "404 Not Found."),
            (503, "", true, "503 Service Unavailable."),
            (500, r#"{ "detail": 1 }"#, true, "500 Internal Server Error."),
            (200, "[{}]", true, "no answer that can be read"),
        ] {
            let error = when_answered(status, body).await;
            assert_eq!((error.code(), error.http_status()), (EXTERNAL_SERVICE, 502), "{error}");
            assert_eq!(error.is_retryable(), retryable, "{error}");
            assert!(error.detail().is_some_and(|detail| detail.contains(says)), "{error}");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_gone_may_come_back() {
        let gone = Climate::open().await.unwrap().address();
        let error = traced(gone).run(context("fog")).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().ends_with("cannot be reached."), "{error}");
    }

    #[tokio::test]
    async fn a_service_that_is_silent_is_waited_for_in_bounds() {
        // It has its port and is never served.
        let silent = Climate::open().await.unwrap();
        let traced = traced(silent.address());
        let observations = traced.observations("fog").await.unwrap();
        // Time stands still but for what is waited for, so the call's limit is over at once.
        tokio::time::pause();
        let error = traced.statistics(&context("fog"), &observations).await.unwrap_err();
        assert_eq!((error.code(), error.http_status(), error.is_retryable()), (EXTERNAL_SERVICE, 504, true));
    }

    #[tokio::test]
    async fn the_token_ends_the_call() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ctx = context("fog");
        let token = ctx.cancellation().clone();
        let traced = traced(silent.local_addr().unwrap());
        let called = async {
            let connection = silent.accept().await.unwrap();
            token.cancel();
            connection
        };
        let (ended, _connection) = tokio::join!(traced.run(ctx), called);
        assert_eq!(ended.unwrap_err().code(), "JOB_CANCELED");
    }

    #[test]
    fn a_request_id_has_its_length() {
        let read =
            |id: &str| serde_json::from_value::<TracedRequest>(serde_json::json!({ "requestId": id, "category": "" }));
        for good in ["x", &"é".repeat(200)] {
            assert!(read(good).is_ok());
        }
        for bad in ["", &"x".repeat(201)] {
            assert!(read(bad).unwrap_err().to_string().contains("1 to 200"));
        }
    }

    #[test]
    fn times_are_written_as_dotnet_does() {
        for (nanos, text) in [
            (0, "00:00:00.0000000"),
            (12_345_678, "00:00:00.0123456"),
            (61_000_000_100, "00:01:01.0000001"),
            (36_000_000_000_000, "10:00:00.0000000"),
        ] {
            assert_eq!(time_span(Duration::from_nanos(nanos)), text);
        }
    }
}
