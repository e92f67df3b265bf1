//! One failed job, followed from its exemplar by ids alone.

mod support;

use serde_json::{Value, json};
use support::{
    Demo, Folder, in_time,
    otlp::{CONSUMER, PRODUCER, Span, Tap},
};

/// The labels of the exemplar of a sample, by name.
fn exemplar(page: &str, sample: &str) -> Value {
    let line = page.lines().find(|line| line.starts_with(sample) && line.contains(" # "));
    let line = line.unwrap_or_else(|| panic!("no exemplar of {sample} in {page}"));
    let (labels, _) = line.split_once(" # {").and_then(|(_, exemplar)| exemplar.split_once('}')).expect("labels");
    labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .fold(json!({}), |mut all, (name, value)| {
            all[name] = json!(value);
            all
        })
}

fn find<'a>(spans: &'a [Span], trace: &str, span: &str) -> &'a Span {
    let found = spans.iter().find(|found| found.trace_id == trace && found.span_id == span);
    found.unwrap_or_else(|| panic!("no span {span} of trace {trace}: {spans:#?}"))
}

/// Events of the lines that fulfil the condition, oldest first.
fn events(lines: &[Value], condition: impl Fn(&Value) -> bool) -> Vec<&str> {
    lines.iter().filter(|line| condition(line)).filter_map(|line| line["event"].as_str()).collect()
}

#[tokio::test]
async fn failed_job_is_followed_by_ids_alone() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let vars = [
        ("AE_LOG_FORMAT", "json"),
        ("AE_MAX_RETRIES", "1"),
        ("AE_RETRY_BASE_SECONDS", "0.05"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", tap.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let demo = Demo::start(&folder, &vars).await;
    for _ in 0..3 {
        demo.finish("/api/unreliable", &json!({ "failureRate": 0 })).await;
        demo.finish("/api/sleep", &json!({ "seconds": 0 })).await;
    }
    demo.finish("/api/unreliable", &json!({ "failureRate": 1 })).await;

    // The counter says which trace and job failed.
    let page = demo.getting("/metrics").header("accept", "application/openmetrics-text; version=1.0.0").send();
    let page = in_time("a scrape", page).await.expect("an answer").text().await.expect("text");
    let counter = r#"async_job_failed_total{error_type="UNRELIABLE",job_type="Unreliable"}"#;
    let labels = exemplar(&page, counter);
    let [trace, span, job] = ["trace_id", "span_id", "job_id"].map(|name| labels[name].as_str().expect(name));

    // The trace has the last attempt, which links to the attempt before it and to the submission.
    let is_complete = |spans: &[Span]| spans.iter().any(|found| found.span_id == span);
    let spans = tap.spans_when("the attempt of the exemplar", is_complete).await;
    let attempt = find(&spans, trace, span);
    assert_eq!(
        (&*attempt.name, attempt.kind, attempt.text("messaging.message.id")),
        ("process Unreliable", CONSUMER, job)
    );
    let linked: Vec<&Span> = attempt.links.iter().map(|link| find(&spans, &link.trace_id, &link.span_id)).collect();
    let kinds: Vec<u8> = linked.iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [PRODUCER, CONSUMER], "{linked:#?}");
    let (send, first) = (linked[0], linked[1]);
    assert!(send.text("messaging.message.id") == job && first.links_to(send), "{linked:#?}");

    // The job names the submission's trace and keeps its log.
    let document: Value = demo.get(&format!("/jobs/{job}")).await.json().await.expect("JSON");
    assert_eq!((&document["status"], &document["attempt"]), (&json!("Failed"), &json!(2)), "{document}");
    assert_eq!((&document["error"]["code"], &document["traceId"]), (&json!("UNRELIABLE"), &json!(send.trace_id)));
    let kept = demo.get(&format!("/jobs/{job}/logs")).await.text().await.expect("text");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let attempts: Vec<&Value> = kept.iter().map(|line| &line["attempt"]).collect();
    assert!(attempts.contains(&&json!(1)) && attempts.contains(&&json!(2)), "{kept:#?}");
    assert!(kept.iter().any(|line| line.to_string().contains("Attempt 2 was selected to fail.")), "{kept:#?}");
    let log = demo.log_path();
    demo.stop().await.expect("a clean exit");

    // The log has the lines of this attempt by its trace, and the job's story by its id.
    let lines = support::lines(&log);
    let of_attempt = |line: &Value| line["trace_id"] == trace && line["attempt"] == 2;
    assert_eq!(events(&lines, of_attempt), ["job.started", "job.failed"]);
    let failed = lines.iter().find(|line| of_attempt(line) && line["event"] == "job.failed").expect("a line");
    assert_eq!((&failed["level"], &failed["job_id"], &failed["span_id"]), (&json!("ERROR"), &json!(job), &json!(span)));
    assert!(failed.to_string().contains("Attempt 2 was selected to fail."), "{failed}");
    // The first attempt may start before the submission returns and logs its line.
    let mut of_job = events(&lines, |line| line["job_id"] == job);
    of_job.retain(|event| *event != "job.accepted");
    assert_eq!(of_job, ["job.started", "job.retry_scheduled", "job.started", "job.failed"]);
    assert_eq!(events(&lines, |line| line["job_id"] == job && line["trace_id"] == send.trace_id), ["job.accepted"]);
}
