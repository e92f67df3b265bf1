//! `GET /health`, `/health/ready` and `/health/live`: the last results of the health checks.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{call::Call, problem::json};
use crate::health::HealthReport;

/// Answers with the report, or with its status alone for a caller without access.
pub(super) fn answer(call: &Call, report: HealthReport) -> Response {
    let report = if call.is_operator() { report } else { report.status_only() };
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

/// Adds the routes to the OpenAPI document.
pub(super) fn describe(document: &mut Value) {
    let status = json!({ "type": "string", "enum": ["Healthy", "Degraded", "Unhealthy"] });
    let time = json!({ "type": "string", "pattern": r"^([0-9]+\.)?[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{7}$" });
    document["components"]["schemas"]["AsyncHealthCheck"] = json!({
        "type": "object",
        "required": ["name", "status", "description", "duration", "tags", "data"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string" },
            "status": status,
            "description": { "type": ["string", "null"] },
            "duration": time,
            "tags": { "type": "array", "items": { "type": "string" } },
            "data": { "type": "object" },
        },
    });
    document["components"]["schemas"]["AsyncHealth"] = json!({
        "type": "object",
        "required": ["status"],
        "additionalProperties": false,
        "description": "Callers without access see the status alone.",
        "properties": {
            "status": status,
            "checks": { "type": "array", "items": { "$ref": "#/components/schemas/AsyncHealthCheck" } },
            "totalDuration": time,
        },
    });
    for (path, id, summary) in [
        ("/health", "getHealth", "Last results of all health checks"),
        ("/health/ready", "getReadiness", "Whether the process should get requests"),
        ("/health/live", "getLiveness", "Whether the process runs; reads nothing outside of it"),
    ] {
        let answer = |text: &str| {
            let schema = json!({ "$ref": "#/components/schemas/AsyncHealth" });
            json!({ "description": text, "content": { "application/json": { "schema": schema } } })
        };
        document["paths"][path]["get"] = json!({
            "operationId": id,
            "tags": ["operators"],
            "summary": summary,
            "parameters": [],
            "responses": {
                "200": answer("Healthy or Degraded."),
                "503": answer("Unhealthy."),
                "500": { "$ref": "#/components/responses/Internal" },
            },
        });
    }
}
