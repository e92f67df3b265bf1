//! A dashboard for Grafana: what an operator looks at, from what users feel to what the process uses.

use serde_json::{Value, json};

use crate::names::metric;

/// A panel: its title, its unit, and queries with their legends.
struct Panel {
    title: &'static str,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
}

/// The types that are chosen above.
const TYPES: &str = "job_type=~\"$job_type\"";

fn rate(name: &str, by: &str, labels: &str) -> String {
    format!("sum by ({by}) (rate({}{{{TYPES}{labels}}}[$__rate_interval]))", metric(name))
}

fn largest(name: &str, by: &str) -> String {
    format!("max by ({by}) ({}{{{TYPES}}})", metric(name))
}

fn times(title: &'static str, name: &str, labels: &str) -> Panel {
    let of = |q: &str| {
        let buckets = format!("rate({}_bucket{{{labels}}}[$__rate_interval])", metric(name));
        format!("histogram_quantile({q}, sum by (le) ({buckets}))")
    };
    let queries = vec![(of("0.5"), "half"), (of("0.95"), "95 %"), (of("0.99"), "99 %")];
    Panel { title, unit: "s", queries }
}

fn panels() -> Vec<Panel> {
    let one = |title, unit, query: String, legend| Panel { title, unit, queries: vec![(query, legend)] };
    let failed = rate("async_job.failed", "job_type", "");
    let ended = format!("({failed} + {})", rate("async_job.processed", "job_type", ""));
    let errors = format!(
        "sum by (operation) (rate({}_count{{outcome=\"error\"}}[$__rate_interval]))",
        metric("async_store.operation_time")
    );
    let requests = format!(
        "sum by (http_route, http_response_status_code) (rate({}_count[$__rate_interval]))",
        metric("http.server.request.duration")
    );
    let process = |name: &str| metric(name);
    vec![
        one("Jobs accepted", "ops", rate("async_job.queued", "job_type", ""), "{{job_type}}"),
        one("Jobs completed", "ops", rate("async_job.processed", "job_type", ""), "{{job_type}}"),
        one("Share of jobs that fail", "percentunit", format!("{failed} / {ended}"), "{{job_type}}"),
        one(
            "Submissions refused",
            "ops",
            rate("async_job.submissions", "job_type, result", ",result!=\"accepted\""),
            "{{job_type}} {{result}}",
        ),
        times("From acceptance to end", "async_job.total_time", TYPES),
        times("Waiting for a start", "async_job.queue_time", TYPES),
        times("Running", "async_job.processing_time", TYPES),
        one(
            "Attempts by outcome",
            "ops",
            rate("async_job.attempts", "outcome, error_type", ""),
            "{{outcome}} {{error_type}}",
        ),
        one("Jobs by state", "short", largest("async_job.jobs", "job_type, state"), "{{job_type}} {{state}}"),
        Panel {
            title: "Oldest that waits, oldest that runs",
            unit: "s",
            queries: vec![
                (largest("async_job.oldest_queued_age", "job_type"), "{{job_type}} waits"),
                (largest("async_job.oldest_running_age", "job_type"), "{{job_type}} runs"),
            ],
        },
        Panel {
            title: "Stuck, recovered, retried",
            unit: "short",
            queries: vec![
                (largest("async_job.stuck", "job_type"), "{{job_type}} stuck"),
                (rate("async_job.recovered", "job_type", ""), "{{job_type}} recovered/s"),
                (rate("async_job.retries", "job_type", ""), "{{job_type}} retried/s"),
            ],
        },
        Panel {
            title: "Workers",
            unit: "short",
            queries: vec![
                (largest("async_worker.live", "job_type"), "{{job_type}} live"),
                (format!("sum by (state) ({})", metric("async_worker.slots")), "slots {{state}}"),
            ],
        },
        times("Calls of the store", "async_store.operation_time", ""),
        one("Calls of the store that fail", "ops", errors, "{{operation}}"),
        times("HTTP requests", "http.server.request.duration", ""),
        one("HTTP requests by route", "reqps", requests, "{{http_route}} {{http_response_status_code}}"),
        one("Memory", "bytes", process("process.resident_memory"), "{{instance}}"),
        one(
            "Processors in use",
            "short",
            format!("rate({}[$__rate_interval])", process("process.cpu")),
            "{{instance}}",
        ),
    ]
}

/// The dashboard, to import into Grafana 9 or newer.
pub(crate) fn dashboard() -> String {
    let panels: Vec<Value> = panels().iter().enumerate().map(|(place, panel)| drawn(place, panel)).collect();
    let source = json!({ "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus" });
    let types = json!({
        "name": "job_type", "label": "Job type", "type": "query", "datasource": datasource(), "refresh": 2,
        "query": format!("label_values({}, job_type)", metric("async_job.queued")),
        "multi": true, "includeAll": true, "allValue": ".*", "current": { "text": "All", "value": "$__all" },
    });
    let dashboard = json!({
        "title": "AsyncEndpoints", "uid": "async-endpoints", "schemaVersion": 38, "editable": true,
        "description": "Generated from the catalogue of metrics by `cargo xtask generate`.",
        "time": { "from": "now-3h", "to": "now" }, "refresh": "30s", "tags": ["async-endpoints"],
        "templating": { "list": [source, types] }, "panels": panels,
    });
    format!("{dashboard:#}\n")
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Two panels beside each other.
fn drawn(place: usize, panel: &Panel) -> Value {
    let targets = panel.queries.iter().zip('A'..).map(|((expr, legend), id)| {
        json!({ "refId": id.to_string(), "expr": expr, "legendFormat": legend, "exemplar": true })
    });
    json!({
        "id": place + 1, "type": "timeseries", "title": panel.title, "datasource": datasource(),
        "gridPos": { "x": 12 * (place % 2), "y": 8 * (place / 2), "w": 12, "h": 8 },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "targets": targets.collect::<Vec<_>>(),
    })
}
