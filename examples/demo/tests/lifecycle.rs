//! The JSON log of a mixed run: one line per lifecycle event, one terminal line per job, flat objects, correlation fields.

mod support;

use serde_json::{Value, json};
use support::{Demo, Folder, in_time, until};

const VARS: [(&str, &str); 6] = [
    ("AE_LOG_FORMAT", "json"),
    ("AE_MAX_RETRIES", "2"),
    ("AE_RETRY_BASE_SECONDS", "0.05"),
    ("AE_LEASE_SECONDS", "1"),
    ("OTEL_SERVICE_NAME", "reports"),
    ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging"),
];

/// Number of lines with this event about this job.
fn count(lines: &[Value], job: &Value, event: &str) -> u64 {
    lines.iter().filter(|line| line["job_id"] == job["id"] && line["event"] == event).count() as u64
}

/// Compares the lines about an ended job with its document.
fn check_events(lines: &[Value], job: &Value) {
    let number = |field: &str| job[field].as_u64().expect("a count");
    let status = job["status"].as_str().expect("a status");
    let released = number("attempt").saturating_sub(1 + number("retryCount") + number("lossCount"));
    for (event, expected) in [
        ("job.accepted", 1),
        ("job.started", number("attempt")),
        ("job.retry_scheduled", number("retryCount")),
        ("job.recovered", number("lossCount")),
        ("job.completed", u64::from(status == "Completed")),
        ("job.failed", u64::from(status == "Failed")),
        ("job.canceled", u64::from(status == "Canceled")),
    ] {
        assert_eq!(count(lines, job, event), expected, "{event} of {job} in {lines:#?}");
    }
    assert!(count(lines, job, "job.released") >= released, "{job}");
}

fn check_shape(line: &Value) {
    let fields = line.as_object().expect("an object");
    assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
    assert!(fields.keys().all(|key| !key.starts_with("otel.")), "{line}");
    for field in ["timestamp", "level", "message", "target"] {
        assert!(line[field].is_string(), "{field} of {line}");
    }
    assert_eq!((&line["service"], &line["environment"]), (&json!("reports"), &json!("staging")), "{line}");
}

/// Fields of the lines of attempts, the handler author's own ones included.
fn check_correlation(line: &Value) {
    let hex = |field: &str, length| line[field].as_str().is_some_and(|id| id.len() == length);
    assert!(hex("trace_id", 32) && hex("span_id", 16), "{line}");
    for field in ["job_id", "job_name", "worker_id", "request_id"] {
        assert!(line[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {line}");
    }
    assert!(line["attempt"].is_u64(), "{line}");
}

async fn cancel(demo: &Demo, job: &str) {
    let answer = demo.post(&format!("{job}/cancel"), &Value::Null).await;
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test]
async fn each_event_of_a_mixed_run_is_one_line() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &VARS).await;
    let mut jobs = Vec::new();
    for (path, body) in [
        ("/api/unreliable", json!({ "failureRate": 0 })),
        ("/api/unreliable", json!({ "failureRate": 0.5, "seed": 1 })),
        ("/api/unreliable", json!({ "failureRate": 0.5, "seed": 2 })),
        ("/api/unreliable", json!({ "failureRate": 1 })),
        ("/api/traced", json!({ "requestId": "r-1", "category": "fog" })),
        ("/api/traced", json!({ "requestId": "r-2", "category": "hail" })),
        ("/api/process-data", json!({ "category": "snow" })),
        ("/api/sleep", json!({ "seconds": 0.3 })),
    ] {
        jobs.push(demo.submit(path, &body).await);
    }
    // Two jobs are canceled: one that runs and one that has not started.
    let running = demo.submit("/api/sleep", &json!({ "seconds": 600 })).await;
    demo.job_when(&running, |job| job["status"] == "InProgress").await;
    cancel(&demo, &running).await;
    jobs.push(running);
    let keyed = || demo.posting("/api/sleep", &json!({ "seconds": 0 })).header("idempotency-key", "k-1").send();
    let first: Value = in_time("a job", keyed()).await.expect("an answer").json().await.expect("JSON");
    let again: Value = in_time("a job", keyed()).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(first["id"], again["id"]);
    jobs.push(format!("/jobs/{}", first["id"].as_str().expect("an id")));
    assert_eq!(demo.post("/api/sleep", &json!({ "seconds": -1 })).await.status(), 422);

    let mut ended = Vec::new();
    for job in &jobs {
        ended.push(demo.ended(job).await);
    }
    let kept =
        demo.get(&format!("/jobs/{}/logs", first["id"].as_str().expect("an id"))).await.text().await.expect("text");
    let log = demo.log_path();
    demo.stop().await.expect("a clean exit");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kept: Vec<&Value> = kept.iter().map(|line| &line["message"]).collect();
    assert_eq!(kept, ["sleep started", "sleep ended"]);
    let lines = support::lines(&log);
    lines.iter().for_each(check_shape);
    for job in &ended {
        check_events(&lines, job);
    }
    assert_eq!(count(&lines, &first, "job.duplicate"), 1);
    assert_eq!(lines.iter().filter(|line| line["event"] == "job.rejected").count(), 1);
    let own = ["sleep started", "sleep ended", "traced process started", "data processing completed"];
    for message in own {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"));
        check_correlation(line);
    }
    for line in lines.iter().filter(|line| line["event"] == "job.started") {
        assert!(line["queue_time_ms"].is_number(), "{line}");
        check_correlation(line);
    }
    for line in lines.iter().filter(|line| line["event"] == "job.completed" || line["event"] == "job.failed") {
        assert!(line["processing_time_ms"].is_number(), "{line}");
        check_correlation(line);
    }
    let failed = lines.iter().filter(|line| line["event"] == "job.retry_scheduled" || line["event"] == "job.failed");
    for line in failed {
        let level = if line["event"] == "job.failed" { "ERROR" } else { "WARN" };
        assert!(line["level"] == level && line["code"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn restarts_leave_one_terminal_line() {
    let folder = Folder::new();
    let vars = [&VARS[..], &[("AE_LEDGER", "ledger"), ("AE_SHUTDOWN_SECONDS", "0.1")]].concat();
    let mut logs = Vec::new();
    let demo = Demo::start(&folder, &vars).await;
    let job = demo.submit("/api/sleep", &json!({ "seconds": 1 })).await;
    until("a start", || folder.ledger().len() == 1).await;
    let log = demo.log_path();
    demo.kill().await;
    logs.push(log);
    // The next process is stopped while the second attempt runs.
    let demo = Demo::start(&folder, &vars).await;
    until("a second start", || folder.ledger().len() == 2).await;
    logs.push(demo.log_path());
    demo.stop().await.expect("a clean exit");
    let demo = Demo::start(&folder, &vars).await;
    let ended = demo.ended(&job).await;
    logs.push(demo.log_path());
    demo.stop().await.expect("a clean exit");
    assert_eq!((&ended["status"], &ended["attempt"], &ended["lossCount"]), (&json!("Completed"), &json!(3), &json!(1)));
    let lines: Vec<Value> = logs.iter().flat_map(|log| support::lines(log)).collect();
    check_events(&lines, &ended);
    assert_eq!(count(&lines, &ended, "job.released"), 1);
}
