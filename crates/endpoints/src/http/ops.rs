//! `GET /ops/workers` and `GET /ops/series`: the live workers, and statistics by minute.

use std::time::Duration;

use async_endpoints_core::{JobName, limits::STATS_MINUTES, store::LiveWorker};
use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde::Serialize;

use super::{
    call::Call,
    problem::{Problem, json},
    query,
};
use crate::series::TypeSeries;

/// Longest window of series, in seconds: everything that stores keep.
const LONGEST: u64 = 60 * STATS_MINUTES as u64;
/// Window of series if the query has none, in seconds.
const HOUR: u64 = 60 * 60;

#[derive(Serialize)]
struct Workers<'a> {
    workers: &'a [LiveWorker],
}

pub(super) async fn workers(call: &Call) -> Result<Response, Problem> {
    Ok(document(&Workers { workers: &call.endpoints.workers().await? }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    step_seconds: u32,
    series: Vec<TypeSeries>,
}

pub(super) async fn series(call: &Call) -> Result<Response, Problem> {
    let [window, name] = query::read(call.query(), ["window", "name"])?;
    let window = window.map_or(Ok(HOUR), |text| query::number("window", &text, 1..=LONGEST))?;
    let name = name.map(|name| JobName::new(&name)).transpose().map_err(|error| query::invalid(error.to_string()))?;
    let series = call.endpoints.series(Duration::from_secs(window), name).await?;
    Ok(document(&Series { step_seconds: 60, series }))
}

/// A document for operators, which changes at any time.
pub(super) fn document(value: &impl Serialize) -> Response {
    let mut response = json("application/json", value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
