//! Secrets in requests and errors, and every place where each of them is found.

mod support;

use std::{fs, path::Path};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time, otlp::Tap};

use Place::{Caller, JobLog, Log, LogFiles, Metrics, OperatorJob, Pages, Records, Spans, Store};

/// A secret, and where it is found: nowhere else.
struct Secret {
    text: &'static str,
    found_in: &'static [Place],
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Place {
    /// stderr, as JSON or for a terminal.
    Log,
    /// Files in `AE_LOG_DIR`.
    LogFiles,
    Spans,
    /// Log records over OTLP.
    Records,
    /// Metrics over OTLP, and the pages `/metrics` and `/metrics/jobs`.
    Metrics,
    /// The files of the job store.
    Store,
    /// Answers about the job to a caller without operator rights.
    Caller,
    /// The job's document for an operator, alone and in a list: it has its error's sources.
    OperatorJob,
    /// The job's log, for operators.
    JobLog,
    /// The other pages of operators: health, OpenAPI document.
    Pages,
}

/// The bearer token of operators.
const OPERATOR: &str = "canary-operator-token";

/// An error's text is for operators. It is stored with the job, so that they can read it after a restart.
const FOR_OPERATORS: &[Place] = &[Log, LogFiles, Records, Store, OperatorJob, JobLog];

/// Handlers receive body and query, after a restart too, so the store has both.
const SECRETS: [Secret; 11] = [
    Secret { text: "canary-authorization", found_in: &[] },
    Secret { text: "canary-proxy-authorization", found_in: &[] },
    Secret { text: "canary-cookie", found_in: &[] },
    Secret { text: "canary-x-api-key", found_in: &[] },
    Secret { text: "canary-uncaptured-header", found_in: &[] },
    Secret { text: "canary-body", found_in: &[Store] },
    Secret { text: "canary-query", found_in: &[Store] },
    // Of requests that are rejected.
    Secret { text: "canary-rejected", found_in: &[] },
    Secret { text: "canary-error", found_in: FOR_OPERATORS },
    // Of the process's settings.
    Secret { text: "canary-operator-token", found_in: &[] },
    Secret { text: "canary-otlp-key", found_in: &[] },
];

/// Sends requests with all secrets. Returns the path of a job that has failed twice because of an error with a secret.
async fn plant(folder: &Folder, demo: &Demo) -> String {
    // The handler returns the error of this trigger with `?`.
    let weather = Connection::open(folder.join("weather.db")).expect("the demo's database");
    let fault = "CREATE TRIGGER fault BEFORE INSERT ON processed BEGIN SELECT RAISE(ABORT, 'canary-error'); END";
    weather.execute_batch(fault).expect("a trigger");
    let with_headers = |request: reqwest::RequestBuilder| {
        let request =
            request.header("authorization", "Bearer canary-authorization").header("cookie", "a=canary-cookie");
        let request = request.header("proxy-authorization", "Basic canary-proxy-authorization");
        request.header("x-api-key", "canary-x-api-key").header("x-tenant", "canary-uncaptured-header")
    };
    let body = json!({ "category": "snow", "note": "canary-body" });
    let request = with_headers(demo.posting("/api/process-data?token=canary-query", &body));
    let job: Value = in_time("a job", request.send()).await.expect("an answer").json().await.expect("JSON");
    for (path, body) in [
        ("/api/sleep?token=canary-rejected", json!({ "seconds": "canary-rejected" })),
        ("/api/nothing?token=canary-rejected", json!("canary-rejected")),
        ("/jobs/none/cancel?token=canary-rejected", json!({ "note": "canary-rejected" })),
    ] {
        let answer = in_time(path, with_headers(demo.posting(path, &body)).send()).await.expect("an answer");
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    let job = format!("/jobs/{}", job["id"].as_str().expect("an id"));
    let ended = demo.ended(&job).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("Failed"), &json!("HANDLER_ERROR")), "{ended}");
    job
}

/// Answers to GET requests, joined.
async fn pages(demo: &Demo, paths: &[&str], token: Option<&str>) -> String {
    let mut text = String::new();
    for path in paths {
        let request = demo.getting(path).header("accept", "application/json, application/problem+json, */*");
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        text += &in_time(path, request.send()).await.expect("an answer").text().await.expect("text");
    }
    text
}

/// All files below a folder whose names begin with the prefix, as text.
fn files(folder: &Path, prefix: &str) -> String {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let wanted = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let text: Vec<String> =
        wanted.map(|file| String::from_utf8_lossy(&fs::read(file.path()).expect("a file")).into_owned()).collect();
    assert!(!text.is_empty(), "no {prefix} in {}", folder.display());
    text.concat()
}

async fn check_places(log_format: &str) {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let vars = [
        ("AE_STORE", "sqlite:jobs.db"),
        ("AE_DATA", "weather.db"),
        ("AE_ADMIN_TOKEN", OPERATOR),
        ("AE_LOG_FORMAT", log_format),
        ("AE_LOG_DIR", "logs"),
        ("RUST_LOG", "trace"),
        ("AE_MAX_RETRIES", "1"),
        ("AE_RETRY_BASE_SECONDS", "0.05"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", tap.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=canary-otlp-key"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
    ];
    let demo = Demo::start(&folder, &vars).await;
    let job = &*plant(&folder, &demo).await;
    let [result, events, logs] = ["result", "events", "logs"].map(|part| format!("{job}/{part}"));
    let operator = Some(OPERATOR);
    let caller = pages(&demo, &[job, &result, &events, &logs, "/jobs"], None).await;
    let operator_job = pages(&demo, &[job, "/jobs?status=Failed"], operator).await;
    let job_log = pages(&demo, &[&logs], operator).await;
    let metrics = pages(&demo, &["/metrics", "/metrics/jobs"], operator).await;
    let others = ["/health", "/health/ready", "/openapi.json"];
    let others = pages(&demo, &others, operator).await;
    let log = demo.log_path();
    demo.stop().await.expect("a clean exit");
    tap.spans_when("an attempt", |spans| spans.iter().any(|span| span.name == "process MonitoredProcess")).await;

    let received = |field: &str| -> String {
        let output = tap.output();
        output.lines().filter(|line| line.contains(field)).collect()
    };
    let (spans, records) = (received("startTimeUnixNano\":\"1"), received("observedTimeUnixNano"));
    assert!(!spans.is_empty() && !records.is_empty(), "{}", tap.output());
    let places = [
        (Log, fs::read_to_string(log).expect("a log")),
        (LogFiles, files(&folder.join("logs"), "")),
        (Spans, spans),
        (Records, records),
        (Metrics, metrics + &received("{\"name\":")),
        (Store, files(&folder.join(""), "jobs.db")),
        (Caller, caller),
        (OperatorJob, operator_job),
        (JobLog, job_log),
        (Pages, others),
    ];
    for Secret { text, found_in } in &SECRETS {
        let found: Vec<Place> =
            places.iter().filter(|(_, page)| page.contains(text)).map(|(place, _)| *place).collect();
        assert_eq!(found, *found_in, "{text} in a run with the log format {log_format}");
    }
}

#[tokio::test]
async fn secrets_are_found_in_no_other_place() {
    check_places("json").await;
}

#[tokio::test]
async fn pretty_log_has_no_secrets() {
    check_places("pretty").await;
}
