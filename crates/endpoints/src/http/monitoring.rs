//! `GET /metrics/jobs` (JSON).

use axum::response::Response;

use super::{call::Call, ops::document, problem::Problem};

/// Counts, rates and durations of jobs in the whole fleet, from the store.
pub(super) async fn jobs(call: &Call) -> Result<Response, Problem> {
    Ok(document(&call.endpoints.recent_stats().await?))
}
