//! `/ops/bulk` and the routes below it: work over many jobs.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    audit::Made,
    body,
    call::Call,
    codes,
    problem::{Problem, json},
};
use crate::{
    bulk::{BulkError, BulkOperation},
    json::read_with_path,
};

/// Freezes and counts the members of an operation.
pub(super) async fn preview(call: &Call, bytes: &Bytes) -> Result<Response, Problem> {
    let preview = call.endpoints.preview_bulk(read(call, bytes)?).await?;
    let mut response = document(StatusCode::OK, &preview);
    response.extensions_mut().insert(Made(preview.id.to_string()));
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    preview: Uuid,
}

/// Starts a previewed operation. A repeat, such as after a lost answer, gets the operation as it is now.
pub(super) async fn start(call: &Call, bytes: &Bytes) -> Result<Response, Problem> {
    let Start { preview } = read(call, bytes)?;
    let operation = call.endpoints.start_bulk(preview).await?;
    let mut response = operation_document(&operation);
    // A base path may have characters that a header value cannot.
    if let Ok(location) = HeaderValue::try_from(format!("{}/ops/bulk/{}", call.base, operation.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[derive(Serialize)]
struct Operations {
    operations: Vec<BulkOperation>,
}

/// Lists the started operations.
pub(super) async fn list(call: &Call) -> Result<Response, Problem> {
    Ok(document(StatusCode::OK, &Operations { operations: call.endpoints.bulks().await? }))
}

/// Returns an operation.
pub(super) async fn get(call: &Call) -> Result<Response, Problem> {
    Ok(document(StatusCode::OK, &call.endpoints.bulk(id(call)?).await?))
}

/// Stops an operation.
pub(super) async fn stop(call: &Call) -> Result<Response, Problem> {
    Ok(operation_document(&call.endpoints.stop_bulk(id(call)?).await?))
}

/// The answer to a start or stop: `202` until the operation has ended.
fn operation_document(operation: &BulkOperation) -> Response {
    document(if operation.ended_at.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED }, operation)
}

fn id(call: &Call) -> Result<Uuid, Problem> {
    Ok(call.path_param("id").and_then(|id| id.parse().ok()).ok_or(codes::BULK_NOT_FOUND)?)
}

fn read<T: DeserializeOwned>(call: &Call, bytes: &Bytes) -> Result<T, Problem> {
    body::check_type(call.headers(), bytes)?;
    let text = body::text(bytes)?;
    read_with_path(text).map_err(|misfit| body::misfit_problem(codes::INVALID_BULK, text, &misfit))
}

fn document(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = json("application/json", value);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Field { field, value, expected } => {
                let reason = format!("invalid value {value:?}, expected {expected}");
                let detail = format!("filter.{field}: {reason}");
                codes::INVALID_BULK.with_detail(detail).with_error(&format!("/filter/{field}"), reason)
            }
            BulkError::NotFound => codes::BULK_NOT_FOUND.into(),
            BulkError::Expired => codes::PREVIEW_EXPIRED.into(),
            BulkError::NotStarted => codes::BULK_NOT_STARTED.into(),
            BulkError::TooMany => codes::TOO_MANY_BULKS.into(),
            BulkError::Store(error) => error.into(),
        }
    }
}
