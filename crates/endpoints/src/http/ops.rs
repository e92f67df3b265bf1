//! `GET /ops/workers`: the live workers of the fleet.

use async_endpoints_core::store::LiveWorker;
use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde::Serialize;

use super::{
    call::Call,
    problem::{Problem, json},
};

#[derive(Serialize)]
struct Workers<'a> {
    workers: &'a [LiveWorker],
}

pub(super) async fn workers(call: &Call) -> Result<Response, Problem> {
    let workers = call.endpoints.workers().await?;
    let mut response = json("application/json", &Workers { workers: &workers });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
