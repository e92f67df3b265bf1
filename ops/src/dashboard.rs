//! A Grafana dashboard. The panels that operators need first are at the top.

use serde_json::{Value, json};

use crate::names::fill;

/// Three quantiles of a job histogram.
macro_rules! quantiles {
    ($bucket:literal) => {
        [quantile!("0.5", $bucket, "p50"), quantile!("0.95", $bucket, "p95"), quantile!("0.99", $bucket, "p99")]
    };
}

macro_rules! quantile {
    ($quantile:literal, $bucket:literal, $legend:literal) => {
        (
            concat!(
                "histogram_quantile(",
                $quantile,
                ", sum by (job_type, le) (rate(",
                $bucket,
                "{job_type=~\"$job_type\"}[$__rate_interval])))"
            ),
            concat!("{{job_type}} ", $legend),
        )
    };
}

/// Query, with metric names from the catalogue, and legend.
type Line = (&'static str, &'static str);

/// Title, Grafana's name of the unit, and lines.
type Panel = (&'static str, &'static str, &'static [Line]);

/// Fleet gauges are the same in every process: `max` aggregates them. Counters count one process: `sum` aggregates them.
/// Fleet gauges are not summed over job types, because a process reports undeclared types as `_other`, and another process
/// reports them by name.
const PANELS: &[Panel] = &[
    (
        "Completed jobs by type",
        "ops",
        &[(
            r#"sum by (job_type) (rate(@async_job.processed@{job_type=~"$job_type"}[$__rate_interval]))"#,
            "{{job_type}}",
        )],
    ),
    (
        "Accepted jobs by type",
        "ops",
        &[(r#"sum by (job_type) (rate(@async_job.queued@{job_type=~"$job_type"}[$__rate_interval]))"#, "{{job_type}}")],
    ),
    (
        "Failure rate, 1 h",
        "percentunit",
        &[(
            r#"sum by (job_type) (increase(@async_job.total_time@_count{job_type=~"$job_type", outcome="failed"}[1h])) / sum by (job_type) (increase(@async_job.total_time@_count{job_type=~"$job_type", outcome=~"completed|failed"}[1h]))"#,
            "{{job_type}}",
        )],
    ),
    (
        "Failures by error",
        "ops",
        &[(
            r#"sum by (error_type) (rate(@async_job.failed@{job_type=~"$job_type"}[$__rate_interval])) > 0"#,
            "{{error_type}}",
        )],
    ),
    (
        "Waiting and running jobs",
        "short",
        &[(
            r#"max by (job_type, state) (@async_job.jobs@{job_type=~"$job_type", state=~"queued|scheduled|in_progress"})"#,
            "{{job_type}} {{state}}",
        )],
    ),
    (
        "Age of the oldest waiting and running job",
        "s",
        &[
            (r#"max by (job_type) (@async_job.oldest_queued_age@{job_type=~"$job_type"})"#, "{{job_type}} waiting"),
            (r#"max by (job_type) (@async_job.oldest_running_age@{job_type=~"$job_type"})"#, "{{job_type}} running"),
        ],
    ),
    ("Queue time", "s", &quantiles!("@async_job.queue_time@_bucket")),
    ("Processing time of an attempt", "s", &quantiles!("@async_job.processing_time@_bucket")),
    ("Total time from acceptance to outcome", "s", &quantiles!("@async_job.total_time@_bucket")),
    (
        "Attempts by outcome",
        "ops",
        &[(r#"sum by (outcome) (rate(@async_job.attempts@{job_type=~"$job_type"}[$__rate_interval]))"#, "{{outcome}}")],
    ),
    (
        "Retries and recovered jobs",
        "ops",
        &[
            (
                r#"sum by (job_type) (rate(@async_job.retries@{job_type=~"$job_type"}[$__rate_interval]))"#,
                "{{job_type}} retried",
            ),
            (
                r#"sum by (job_type) (rate(@async_job.recovered@{job_type=~"$job_type"}[$__rate_interval]))"#,
                "{{job_type}} recovered",
            ),
        ],
    ),
    ("Stuck jobs", "short", &[(r#"max by (job_type) (@async_job.stuck@{job_type=~"$job_type"})"#, "{{job_type}}")]),
    ("Live workers", "short", &[(r#"max by (job_type) (@async_worker.live@{job_type=~"$job_type"})"#, "{{job_type}}")]),
    ("Slots", "short", &[("sum by (state) (@async_worker.slots@)", "{{state}}")]),
    (
        "Store: p95 by operation",
        "s",
        &[(
            "histogram_quantile(0.95, sum by (operation, le) (rate(@async_store.operation_time@_bucket[$__rate_interval])))",
            "{{operation}}",
        )],
    ),
    (
        "Store: errors by operation",
        "ops",
        &[(
            r#"sum by (operation) (rate(@async_store.operation_time@_count{outcome="error"}[$__rate_interval]))"#,
            "{{operation}}",
        )],
    ),
    (
        "Submissions by result",
        "ops",
        &[(
            r#"sum by (result) (rate(@async_job.submissions@{job_type=~"$job_type"}[$__rate_interval]))"#,
            "{{result}}",
        )],
    ),
    (
        "HTTP: requests by status",
        "reqps",
        &[(
            "sum by (http_response_status_code) (rate(@http.server.request.duration@_count[$__rate_interval]))",
            "{{http_response_status_code}}",
        )],
    ),
    (
        "HTTP: p95 by route",
        "s",
        &[(
            "histogram_quantile(0.95, sum by (http_route, le) (rate(@http.server.request.duration@_bucket[$__rate_interval])))",
            "{{http_route}}",
        )],
    ),
    // Other programs export the same names; build_info selects AsyncEndpoints.
    (
        "Memory of processes",
        "bytes",
        &[(
            r#"@process.resident_memory@ and on (job, instance) @build_info@{async_endpoints_version!=""}"#,
            "{{instance}}",
        )],
    ),
    (
        "Processors used by processes",
        "short",
        &[(
            r#"rate(@process.cpu@[$__rate_interval]) and on (job, instance) @build_info@{async_endpoints_version!=""}"#,
            "{{instance}}",
        )],
    ),
];

/// The dashboard in Grafana's import format.
pub(crate) fn text() -> String {
    let panels: Vec<Value> = PANELS.iter().zip(0..).map(|(panel, index)| rendered(panel, index)).collect();
    let dashboard = json!({
        "uid": "async-endpoints",
        "title": "AsyncEndpoints",
        "description": "Generated from ops/src/dashboard.rs by `cargo xtask generate`. Edit that file.",
        "tags": ["async-endpoints"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": [datasource(), job_type()] },
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}

fn datasource() -> Value {
    json!({ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" })
}

fn job_type() -> Value {
    let query = fill("label_values(@async_job.queued@, job_type)");
    json!({
        "name": "job_type", "label": "Job type", "type": "query", "datasource": source(),
        "query": { "query": query, "refId": "job_type" }, "definition": query,
        "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Renders a panel. Three panels fill a row of Grafana's 24 columns.
fn rendered((title, unit, lines): &Panel, index: usize) -> Value {
    let targets: Vec<Value> = lines.iter().zip('A'..).map(|(line, letter)| target(*line, letter)).collect();
    json!({
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source(),
        "gridPos": { "x": index % 3 * 8, "y": index / 3 * 8, "w": 8, "h": 8 },
        "fieldConfig": { "defaults": { "unit": unit, "min": 0 }, "overrides": [] },
        "options": { "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi", "sort": "desc" } },
        "targets": targets,
    })
}

/// Histogram panels show exemplars, which name a job.
fn target((query, legend): Line, letter: char) -> Value {
    json!({
        "refId": letter, "datasource": source(), "expr": fill(query), "legendFormat": legend,
        "exemplar": query.contains("_bucket"),
    })
}
