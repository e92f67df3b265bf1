//! `GET /metrics/jobs` (JSON).

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use super::{
    call::Call,
    problem::{Problem, json},
};

/// Counts, rates and durations of jobs in the whole fleet, from the store.
pub(super) async fn jobs(call: &Call) -> Result<Response, Problem> {
    let mut response = json("application/json", &call.endpoints.recent_stats().await?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
