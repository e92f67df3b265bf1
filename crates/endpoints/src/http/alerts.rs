//! `GET /alerts`, `POST /alerts/silences`, `DELETE /alerts/silences/{id}` and `POST /alerts/test`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use super::{body, call::Call, codes, ops::document, problem::Problem};
use crate::{
    alerts::{NewSilence, SilenceError, TestResult},
    json::read_with_path,
};

/// The rules and silences.
pub(super) async fn alerts(call: &Call) -> Result<Response, Problem> {
    Ok(document(&call.endpoints.alert_status().await?))
}

/// Adds a silence.
pub(super) async fn silence(call: &Call, bytes: &Bytes) -> Result<Response, Problem> {
    body::check_type(call.headers(), bytes)?;
    let text = body::text(bytes)?;
    let new: NewSilence =
        read_with_path(text).map_err(|misfit| body::misfit_problem(codes::INVALID_SILENCE, text, &misfit))?;
    let silence = call.endpoints.silence(new).await?;
    let mut response = document(&silence);
    *response.status_mut() = StatusCode::CREATED;
    // A base path may have characters that a header value cannot.
    if let Ok(location) = HeaderValue::try_from(format!("{}/alerts/silences/{}", call.base, silence.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Ends a silence.
pub(super) async fn end_silence(call: &Call) -> Result<Response, Problem> {
    let id = call.path_param("id").and_then(|id| id.parse().ok()).ok_or(codes::SILENCE_NOT_FOUND)?;
    match call.endpoints.end_silence(id).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(codes::SILENCE_NOT_FOUND.into()),
    }
}

#[derive(Serialize)]
struct Tested {
    results: Vec<TestResult>,
}

/// Sends a test alert with every sender.
pub(super) async fn test(call: &Call) -> Response {
    document(&Tested { results: call.endpoints.test_alerts().await })
}

impl From<SilenceError> for Problem {
    fn from(error: SilenceError) -> Self {
        match error {
            SilenceError::Field { field, value, expected } => {
                let reason = format!("invalid value {value:?}, expected {expected}");
                let detail = format!("{field}: {reason}");
                codes::INVALID_SILENCE.with_detail(detail).with_error(&format!("/{field}"), reason)
            }
            SilenceError::TooMany => codes::TOO_MANY_SILENCES.into(),
            SilenceError::Store(error) => error.into(),
        }
    }
}
