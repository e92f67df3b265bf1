//! `TracedProcess`: reads rows of the weather table, sends them to the climate service for monthly statistics, and formats
//! its answer. Each step is a span below the attempt. The request carries the trace, so that the climate service joins it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_endpoints::{JobContext, JobError, JobHandler, JobType, telemetry::trace::inject_headers};
use reqwest::{Client, Response, StatusCode, header::HeaderMap};
use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::{task::spawn_blocking, time::Instant};
use tracing::{Instrument, Span, field, info_span};
use utoipa::ToSchema;

use super::{UNKNOWN_CATEGORY, known_category, now};
use crate::{
    climate::{Month, Problem},
    ledger::Ledger,
    weather::{Observation, Weather},
};

pub(crate) const TRACED: JobType<TracedRequest, TracedResult> =
    JobType::new("TracedProcess").error_codes(&[EXTERNAL_SERVICE, UNKNOWN_CATEGORY]);

/// The error code of all failures of the climate service.
const EXTERNAL_SERVICE: &str = "EXTERNAL_SERVICE";
/// Timeout for a call, which usually takes milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ID_CHARS: usize = 200;
const STEPS: u64 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracedRequest {
    /// The caller's id of this request, for logs: 1 to 200 characters.
    #[serde(deserialize_with = "request_id")]
    #[schema(min_length = 1, max_length = 200, example = "r-1")]
    request_id: String,
    /// A category of the weather table, such as `snow`.
    #[schema(example = "snow")]
    category: String,
}

fn request_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    match id.chars().count() {
        1..=MAX_ID_CHARS => Ok(id),
        length => Err(de::Error::custom(format!("{length} characters, expected 1 to {MAX_ID_CHARS}"))),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TracedResult {
    /// A line for each place and month.
    processed_data: Vec<String>,
    processed_at: String,
    /// Duration of this attempt, `hh:mm:ss.fffffff`.
    execution_time: String,
}

/// The handler.
pub(crate) struct Traced {
    weather: Arc<Weather>,
    ledger: Ledger,
    client: Client,
    climate: SocketAddr,
    url: String,
}

impl Traced {
    /// `climate` is the address of the climate service.
    pub(crate) fn new(climate: SocketAddr, weather: Arc<Weather>, ledger: Ledger) -> reqwest::Result<Self> {
        // Proxy settings of the environment do not apply to a service on this machine.
        let client = Client::builder().no_proxy().timeout(CALL_TIMEOUT).build()?;
        Ok(Self { weather, ledger, client, climate, url: format!("http://{climate}/monthly") })
    }

    /// Reads observations on a blocking thread.
    async fn observations(&self, category: &str) -> Result<Vec<Observation>, JobError> {
        let (weather, category) = (self.weather.clone(), category.to_owned());
        // Numbers are i64: other integers are exported as text.
        let query = info_span!(
            "SELECT observation",
            otel.kind = "client",
            db.system.name = "sqlite",
            db.operation.name = "SELECT",
            db.collection.name = "observation",
            db.response.returned_rows = field::Empty,
        );
        spawn_blocking(move || {
            let _entered = query.enter();
            known_category(&weather, &category)?;
            let observations = weather.select(&category, None, None)?;
            query.record("db.response.returned_rows", observations.len() as i64);
            Ok(observations)
        })
        .await?
    }

    async fn statistics<R>(&self, ctx: &JobContext<R>, days: &[Observation]) -> Result<Vec<Month>, JobError> {
        let span = info_span!(
            "POST /monthly",
            otel.kind = "client",
            http.request.method = "POST",
            http.response.status_code = field::Empty,
            server.address = %self.climate.ip(),
            server.port = i64::from(self.climate.port()),
            url.full = self.url,
        );
        let call = async {
            let mut trace = HeaderMap::new();
            inject_headers(&mut trace);
            let answer = self.client.post(&self.url).headers(trace).json(days).send().await;
            let answer = answer.map_err(|error| unanswered(&error))?;
            Span::current().record("http.response.status_code", i64::from(answer.status().as_u16()));
            accepted(answer).await?.json().await.map_err(|error| unanswered(&error))
        };
        // Dropping the call closes its connection.
        let call = ctx.cancellation().run_until_cancelled(call.instrument(span));
        call.await.ok_or_else(JobError::canceled)?
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
        step(&ctx, 2, "formatting its answer");
        let processed_data = format_months(&months, category);
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

/// Returns a successful answer. A 4xx is a permanent error, because a retry would send the same request.
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

/// A retryable error for a missing or unreadable answer.
fn unanswered(error: &reqwest::Error) -> JobError {
    tracing::warn!(error = error as &dyn std::error::Error, "call of the climate service failed");
    let (what, status) = match error {
        error if error.is_timeout() => ("did not answer in time", StatusCode::GATEWAY_TIMEOUT),
        error if error.is_connect() => ("cannot be reached", StatusCode::BAD_GATEWAY),
        _ => ("sent an unreadable answer", StatusCode::BAD_GATEWAY),
    };
    JobError::retryable(EXTERNAL_SERVICE, format!("The climate service {what}.")).status(status.as_u16())
}

fn format_months(months: &[Month], category: &str) -> Vec<String> {
    let _entered = info_span!("format months", months = months.len() as i64).entered();
    months.iter().map(|month| format_month(month, category)).collect()
}

fn format_month(month: &Month, category: &str) -> String {
    let Month { location, month, days, temp_min, temp_max, temp_mean, precipitation, wind } = month;
    let plural = if *days == 1 { "" } else { "s" };
    format!(
        "{location}, {month}: {days} day{plural} of {category}, {temp_min:.1} to {temp_max:.1} °C, {temp_mean:.1} °C on average, \
         {precipitation:.1} mm, wind {wind:.1} m/s"
    )
}

/// Formats a duration as .NET formats a `TimeSpan` of less than a day, in ticks of 100 ns.
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

    /// Runs a job with a climate service that always returns this answer.
    async fn error_for_answer(status: u16, body: &'static str) -> JobError {
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
    async fn statistics_of_all_rows_are_formatted() {
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
    async fn unknown_category_is_not_sent() {
        let climate = Climate::open().await.unwrap();
        let error = traced(climate.address()).run(context("hail")).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("UNKNOWN_CATEGORY", false));
    }

    #[tokio::test]
    async fn only_4xx_of_the_service_is_permanent() {
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
            (200, "[{}]", true, "unreadable answer"),
        ] {
            let error = error_for_answer(status, body).await;
            assert_eq!((error.code(), error.http_status()), (EXTERNAL_SERVICE, 502), "{error}");
            assert_eq!(error.is_retryable(), retryable, "{error}");
            assert!(error.detail().is_some_and(|detail| detail.contains(says)), "{error}");
        }
    }

    #[tokio::test]
    async fn unreachable_service_is_retryable() {
        let gone = Climate::open().await.unwrap().address();
        let error = traced(gone).run(context("fog")).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().ends_with("cannot be reached."), "{error}");
    }

    #[tokio::test]
    async fn silent_service_is_a_timeout() {
        // The port is open and never served.
        let silent = Climate::open().await.unwrap();
        let traced = traced(silent.address());
        let observations = traced.observations("fog").await.unwrap();
        // Paused time advances to the next timer, so the timeout of the call elapses at once.
        tokio::time::pause();
        let error = traced.statistics(&context("fog"), &observations).await.unwrap_err();
        assert_eq!((error.code(), error.http_status(), error.is_retryable()), (EXTERNAL_SERVICE, 504, true));
    }

    #[tokio::test]
    async fn cancellation_ends_the_call() {
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
    fn request_id_length_is_checked() {
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
    fn duration_is_formatted_as_in_dotnet() {
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
