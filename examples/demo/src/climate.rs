//! A second HTTP service: `POST /monthly` takes observations and returns statistics of each calendar month. `GET /health`
//! answers while the service runs.
//!
//! It runs in the demo's process on a port of 127.0.0.1, and does not use jobs, handlers or the database.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use async_endpoints::{
    CancellationToken,
    telemetry::{
        opentelemetry::{Context, context::FutureExt},
        trace::remote_context,
    },
};
use axum::{
    Json, Router,
    extract::{Request, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, time::timeout};
use tracing::{Instrument, field, info_span};

use crate::day::Day;

/// Maximum time for open connections at the end. All handlers have ended by then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The weather of one place on one day. Other fields are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Observation {
    location: String,
    date: Day,
    precipitation: f64,
    temp_max: f64,
    temp_min: f64,
    wind: f64,
}

/// Statistics of a calendar month at a place, over all years.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Month {
    pub(crate) location: String,
    /// The English name of the month.
    pub(crate) month: String,
    /// Number of observed days.
    pub(crate) days: u32,
    /// Lowest temperature in °C.
    pub(crate) temp_min: f64,
    /// Highest temperature in °C.
    pub(crate) temp_max: f64,
    /// Mean in °C of the days' midpoints.
    pub(crate) temp_mean: f64,
    /// Total in millimetres.
    pub(crate) precipitation: f64,
    /// Mean in metres per second.
    pub(crate) wind: f64,
}

/// Problem object of an error response (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) title: String,
    pub(crate) status: u16,
    pub(crate) detail: String,
}

/// The service with its open port.
pub(crate) struct Climate {
    listener: TcpListener,
    address: SocketAddr,
}

impl Climate {
    /// Opens a free port of 127.0.0.1. Connections wait until `serve_during`.
    pub(crate) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `working` ends, panics or is dropped.
    pub(crate) async fn serve_during<T>(self, working: impl Future<Output = T>) -> T {
        let end = CancellationToken::new();
        let serving = axum::serve(self.listener, routes()).with_graceful_shutdown(end.clone().cancelled_owned());
        let (end, serving) = (end.drop_guard(), tokio::spawn(serving.into_future()));
        tracing::info!(address = %self.address, "the climate service is listening");
        let result = working.await;
        drop(end);
        if timeout(CLOSE_TIMEOUT, serving).await.is_err() {
            tracing::warn!("connections to the climate service are still open and end with the process");
        }
        result
    }
}

fn routes() -> Router {
    let monthly = Router::new().route("/monthly", post(monthly)).route_layer(from_fn(join_trace));
    monthly.route("/health", get(async || "ok"))
}

/// Answers the request in a span of the caller's trace.
async fn join_trace(request: Request, next: Next) -> Response {
    let caller = caller(request.headers());
    let answered = async {
        let span = info_span!(
            "POST /monthly",
            otel.kind = "server",
            http.request.method = "POST",
            http.response.status_code = field::Empty,
            http.route = "/monthly",
            url.path = "/monthly",
            url.scheme = "http",
        );
        let response = next.run(request).instrument(span.clone()).await;
        span.record("http.response.status_code", i64::from(response.status().as_u16()));
        response
    };
    answered.with_context(caller.unwrap_or_default()).await
}

fn caller(headers: &HeaderMap) -> Option<Context> {
    let header = |name| headers.get(name)?.to_str().ok();
    remote_context(header("traceparent")?, header("tracestate"))
}

async fn monthly(body: Result<Json<Vec<Observation>>, JsonRejection>) -> Result<Json<Vec<Month>>, Rejection> {
    let Json(observations) = body?;
    check(&observations)?;
    tracing::info!(rows = observations.len(), "computing monthly statistics");
    Ok(Json(statistics(&observations)))
}

fn check(observations: &[Observation]) -> Result<(), Rejection> {
    if observations.is_empty() {
        return Err(Rejection::unprocessable("no observations, expected at least one"));
    }
    let invalid = observations.iter().enumerate().find_map(|(index, day)| Some((index, day.fault()?)));
    invalid.map_or(Ok(()), |(index, fault)| Err(Rejection::unprocessable(format!("[{index}]: {fault}"))))
}

impl Observation {
    /// What is invalid about the observation.
    fn fault(&self) -> Option<&'static str> {
        [
            (self.location.is_empty(), "location is empty"),
            (self.temp_min > self.temp_max, "tempMin is above tempMax"),
            (self.precipitation < 0.0, "precipitation is below 0"),
            (self.wind < 0.0, "wind is below 0"),
        ]
        .into_iter()
        .find_map(|(is_wrong, fault)| is_wrong.then_some(fault))
    }
}

/// Statistics by place and month, January first.
fn statistics(observations: &[Observation]) -> Vec<Month> {
    let mut months: BTreeMap<_, Vec<&Observation>> = BTreeMap::new();
    for day in observations {
        months.entry((&day.location, day.date.date().month())).or_default().push(day);
    }
    months.values().filter_map(|days| month(days)).collect()
}

/// Statistics of the days of one month. `None` without days.
fn month(days: &[&Observation]) -> Option<Month> {
    let first = days.first()?;
    let sum = |of: fn(&Observation) -> f64| days.iter().map(|day| of(day)).sum::<f64>();
    let count = days.len() as f64;
    Some(Month {
        location: first.location.clone(),
        month: first.date.date().strftime("%B").to_string(),
        days: u32::try_from(days.len()).unwrap_or(u32::MAX),
        temp_min: days.iter().map(|day| day.temp_min).fold(f64::INFINITY, f64::min),
        temp_max: days.iter().map(|day| day.temp_max).fold(f64::NEG_INFINITY, f64::max),
        temp_mean: sum(|day| f64::midpoint(day.temp_min, day.temp_max)) / count,
        precipitation: sum(|day| day.precipitation),
        wind: sum(|day| day.wind) / count,
    })
}

/// An error response.
#[derive(Debug)]
struct Rejection(StatusCode, String);

impl Rejection {
    fn unprocessable(detail: impl Into<String>) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, detail.into())
    }
}

impl From<JsonRejection> for Rejection {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let title = status.canonical_reason().unwrap_or("Rejected").to_owned();
        let problem = Problem { title, status: status.as_u16(), detail };
        (status, [(CONTENT_TYPE, "application/problem+json")], Json(problem)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Client;
    use serde_json::{Value, json};

    use super::*;

    /// Sends a body of this type and returns the answer.
    async fn ask(content_type: &str, body: String) -> (StatusCode, Value) {
        let climate = Climate::open().await.unwrap();
        let url = format!("http://{}/monthly", climate.address());
        let request = Client::new().post(url).header("content-type", content_type).body(body);
        climate
            .serve_during(async {
                let answer = request.send().await.unwrap();
                let expected =
                    if answer.status().is_success() { "application/json" } else { "application/problem+json" };
                assert_eq!(answer.headers()["content-type"], expected);
                (answer.status(), answer.json().await.unwrap())
            })
            .await
    }

    fn day(location: &str, date: &str, temp_min: f64, temp_max: f64) -> Value {
        json!({ "location": location, "date": date, "precipitation": 1.5, "tempMin": temp_min, "tempMax": temp_max,
            "wind": temp_max / 4.0, "category": "rain" })
    }

    #[tokio::test]
    async fn months_are_summed_by_place_over_all_years() {
        let days = json!([
            day("Seattle", "2012-02-29", 0.0, 4.0),
            day("New York", "2012-11-30", 3.0, 5.0),
            day("Seattle", "2014-01-01", 1.0, 3.0),
            day("Seattle", "2015-02-01", -2.0, 8.0),
        ]);
        let (status, months) = ask("application/json", days.to_string()).await;
        let month = |location: &str, month: &str, numbers: [f64; 6]| {
            let [days, temp_min, temp_max, temp_mean, precipitation, wind] = numbers;
            json!({ "location": location, "month": month, "days": days as u32, "tempMin": temp_min,
                "tempMax": temp_max, "tempMean": temp_mean, "precipitation": precipitation, "wind": wind })
        };
        let expected = json!([
            month("New York", "November", [1.0, 3.0, 5.0, 4.0, 1.5, 1.25]),
            month("Seattle", "January", [1.0, 1.0, 3.0, 2.0, 1.5, 0.75]),
            month("Seattle", "February", [2.0, -2.0, 8.0, 2.5, 3.0, 1.5]),
        ]);
        assert_eq!((status, months), (StatusCode::OK, expected));
    }

    #[tokio::test]
    async fn invalid_observation_is_rejected_with_a_reason() {
        let good = day("Seattle", "2012-01-01", 0.0, 4.0);
        let with = |name: &str, value: Value| {
            let mut bad = good.clone();
            bad[name] = value;
            json!([good, bad]).to_string()
        };
        for (body, status, says) in [
            ("[]".to_owned(), 422, "no observations"),
            (with("location", json!("")), 422, "[1]: location"),
            (with("tempMin", json!(4.1)), 422, "[1]: tempMin is above tempMax"),
            (with("precipitation", json!(-0.1)), 422, "[1]: precipitation"),
            (with("wind", json!(-1)), 422, "[1]: wind"),
            (with("date", json!("2012-02-30")), 422, "[1].date"),
            (with("tempMax", json!(null)), 422, "[1].tempMax"),
            (json!({ "observations": [] }).to_string(), 422, "expected a sequence"),
            ("[{".to_owned(), 400, "EOF"),
            (" ".repeat(3 << 20), 413, "length limit"),
        ] {
            let (answered, problem) = ask("application/json", body).await;
            assert_eq!((answered.as_u16(), &problem["status"]), (status, &json!(status)), "{problem}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{says}: {problem}");
        }
        let (answered, _) = ask("text/csv", good.to_string()).await;
        assert_eq!(answered, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[tokio::test]
    async fn port_is_closed_when_the_work_ends() {
        let climate = Climate::open().await.unwrap();
        let address = climate.address();
        assert!(address.ip().is_loopback());
        let reached = climate.serve_during(async { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
        assert!(reached);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
