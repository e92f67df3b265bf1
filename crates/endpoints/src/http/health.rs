//! `GET /health`, `/health/ready` and `/health/live`: the last results of the health checks.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::json;

use super::{call::Call, problem::json};
use crate::health::HealthReport;

/// Answers with the report, or with its status alone for a caller without access.
pub(super) fn answer(call: &Call, report: HealthReport) -> Response {
    let report = if call.config.access.grants(&call.head) { report } else { report.status_only() };
    let mut response = call.config.health_response.as_ref().map_or_else(|| document(&report), |write| write(&report));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The response in JSON: the whole report, or its status if it has no checks.
fn document(report: &HealthReport) -> Response {
    let mut response = if report.checks.is_empty() {
        json("application/json", &json!({ "status": report.status }))
    } else {
        json("application/json", report)
    };
    *response.status_mut() = report.status_code();
    response
}
