//! Jobs of a caller with a trace, and their spans at a receiver.

use serde_json::Value;

use super::{
    Demo,
    otlp::{CONSUMER, PRODUCER, Span},
};

/// The trace of a caller that samples.
pub(crate) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(crate) const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Exports all signals to the receiver within milliseconds.
pub(crate) fn exporting<'a>(endpoint: &'a str, vars: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let export = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("AE_LOG_FORMAT", "json"),
        ("AE_RETRY_BASE_SECONDS", "0.05"),
    ];
    export.into_iter().chain(vars.iter().copied()).collect()
}

/// Submits a job as a part of the caller's trace. Returns its path.
pub(crate) async fn submit_traced(demo: &Demo, path: &str, body: &Value) -> String {
    let answer = demo.posting(path, body).header("traceparent", CALLER).header("tracestate", "vendor=x").send().await;
    let answer = answer.expect("an answer");
    answer.headers()["location"].to_str().expect("a Location").to_owned()
}

/// The id in a job's path.
pub(crate) fn id(job: &str) -> &str {
    job.rsplit_once('/').expect("a path").1
}

/// The attempts' spans of a job, oldest first.
pub(crate) fn attempts(spans: &[Span], job: &str) -> Vec<Span> {
    let of_job = |span: &&Span| span.kind == CONSUMER && span.text("messaging.message.id") == id(job);
    let mut found: Vec<Span> = spans.iter().filter(of_job).cloned().collect();
    found.sort_by_key(|span| span.attributes["async_job.attempt"].as_i64());
    found
}

/// The span of a job's submission.
pub(crate) fn sent<'a>(spans: &'a [Span], job: &str) -> &'a Span {
    let of_job = |span: &&Span| span.kind == PRODUCER && span.text("messaging.message.id") == id(job);
    spans.iter().find(of_job).unwrap_or_else(|| panic!("no span sends {job}: {spans:#?}"))
}
