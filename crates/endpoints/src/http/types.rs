//! `GET /ops/types` and the routes below it, which pause, resume and limit a job type.

use async_endpoints_core::Timestamp;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    body,
    call::Call,
    codes::{self, ProblemKind},
    ops::document,
    problem::Problem,
};
use crate::{
    json::read_with_path,
    types::{TypeChangeError, TypeState},
};

#[derive(Serialize)]
struct Types {
    types: Vec<TypeState>,
}

pub(super) async fn types(call: &Call) -> Result<Response, Problem> {
    Ok(document(&Types { types: call.endpoints.types().await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPause {
    reason: String,
    until: Option<Timestamp>,
}

pub(super) async fn pause(call: &Call, bytes: &Bytes) -> Result<Response, Problem> {
    let NewPause { reason, until } = read(call, bytes, codes::INVALID_PAUSE)?;
    let changed = call.endpoints.pause_type(name(call), reason, until).await;
    answer(changed, codes::INVALID_PAUSE)
}

pub(super) async fn resume(call: &Call) -> Result<Response, Problem> {
    answer(call.endpoints.resume_type(name(call)).await, codes::INVALID_PAUSE)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewLimit {
    per_process: u32,
}

pub(super) async fn limit(call: &Call, bytes: &Bytes) -> Result<Response, Problem> {
    let NewLimit { per_process } = read(call, bytes, codes::INVALID_LIMIT)?;
    answer(call.endpoints.limit_type(name(call), Some(per_process)).await, codes::INVALID_LIMIT)
}

pub(super) async fn remove_limit(call: &Call) -> Result<Response, Problem> {
    answer(call.endpoints.limit_type(name(call), None).await, codes::INVALID_LIMIT)
}

fn name(call: &Call) -> &str {
    call.path_param("name").unwrap_or_default()
}

/// Reads the body. `invalid` is the problem of one that does not fit.
fn read<T: DeserializeOwned + 'static>(call: &Call, bytes: &Bytes, invalid: ProblemKind) -> Result<T, Problem> {
    body::check_type(call.headers(), bytes)?;
    let text = body::text(bytes)?;
    read_with_path(text).map_err(|misfit| body::misfit_problem(invalid, text, &misfit))
}

fn answer(changed: Result<TypeState, TypeChangeError>, invalid: ProblemKind) -> Result<Response, Problem> {
    changed.map(|state| document(&state)).map_err(|error| match error {
        TypeChangeError::Unknown(_) => codes::TYPE_NOT_FOUND.with_detail(format!("{error}.")),
        TypeChangeError::Field { field, value, expected } => {
            let reason = format!("invalid value {value:?}, expected {expected}");
            invalid.with_detail(format!("{field}: {reason}")).with_error(&format!("/{field}"), reason)
        }
        TypeChangeError::Store(error) => error.into(),
    })
}
