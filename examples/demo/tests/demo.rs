//! Tests of the demo as a process: answers, exit codes and files.

mod support;

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use support::{Demo, Folder, until};

/// Starts and ends in the ledger, by `job,attempt,pid`.
fn ledger(folder: &Folder) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(folder.join("ledger.csv")).expect("a ledger");
    let mut attempts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (attempt, what) = line.rsplit_once(',').expect("four fields");
        attempts.entry(attempt.to_owned()).or_default().push(what.to_owned());
    }
    attempts
}

fn rows_of(folder: &Folder, job: &Value) -> i64 {
    let data = rusqlite::Connection::open(folder.join("weather.db")).expect("the demo's data");
    let count = "SELECT count(*) FROM processed WHERE job_id = ?";
    data.query_row(count, [job["id"].as_str()], |row| row.get(0)).expect("a count")
}

/// The address of the climate service, once it is in the log.
fn climate(demo: &Demo) -> Option<String> {
    let lines = demo.log();
    let line = lines.lines().find(|line| line.contains("the climate service is listening"))?;
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    Some(line["address"].as_str().expect("an address").to_owned())
}

#[tokio::test]
async fn rows_are_processed_and_written_back() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    for (request, count) in [
        (json!({ "category": "rain", "startDate": "2012-01-01", "endDate": "2012-01-31" }), 23),
        (json!({ "category": "snow", "startDate": "2014-01-01T00:00:00Z", "somethingNew": 1 }), 42),
        (json!({ "category": "sun", "endDate": null }), 1466),
    ] {
        let job = demo.finish("/api/process-data", &request).await;
        assert_eq!(job["status"], "Completed", "{job}");
        assert_eq!(job["result"]["processedCount"], count);
        assert!(job["result"]["processedAt"].is_string() && job["result"]["summary"].is_string(), "{job}");
        assert_eq!(job["progress"]["percent"], 100.0);
        assert_eq!(rows_of(&folder, &job), count);
    }
    let job = demo.finish("/api/process-data", &json!({ "category": "hail" })).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("Failed"), &json!("UNKNOWN_CATEGORY")));
    assert_eq!((&job["attempt"], &job["error"]["status"]), (&json!(1), &json!(404)));
    assert!(job["error"]["detail"].as_str().is_some_and(|known| known.contains("drizzle, fog, rain, snow, sun")));
}

#[tokio::test]
async fn invalid_field_is_named() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    for (path, body, field) in [
        ("/api/process-data", json!({ "category": "sun", "startDate": "yesterday" }), "startDate"),
        ("/api/performance", json!({ "itemCount": -1 }), "itemCount"),
        (
            "/api/performance",
            json!({ "itemCount": 50_000_001 }),
            "itemCount: 50000001 is out of range, expected 0 to 50000000",
        ),
        ("/api/unreliable", json!({ "failureRate": 1.5 }), "failureRate: 1.5 is out of range, expected 0 to 1"),
        ("/api/unreliable", json!({ "failureRate": 1, "seed": 9_007_199_254_740_992_u64 }), "seed"),
        ("/api/sleep", json!({ "seconds": "long" }), "seconds"),
        ("/api/sleep", json!({ "seconds": 3600.5 }), "seconds: 3600.5 is out of range, expected 0 to 3600"),
        ("/api/traced", json!({ "category": "sun" }), "requestId"),
        ("/api/traced", json!({ "requestId": "", "category": "sun" }), "requestId"),
        ("/api/traced", json!({ "requestId": "x".repeat(201), "category": "sun" }), "requestId"),
        ("/api/traced", json!({ "requestId": "r-1" }), "category"),
    ] {
        let answer = demo.post(path, &body).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: Value = answer.json().await.expect("a problem");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(field)), "{problem}");
    }
}

#[tokio::test]
async fn all_items_are_processed() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    let request = json!({ "taskType": "squares", "itemCount": 123_456, "includeIoSimulation": true });
    let job = demo.finish("/api/performance", &request).await;
    assert_eq!((&job["status"], &job["result"]["processedItemCount"]), (&json!("Completed"), &json!(123_456)));
}

#[tokio::test]
async fn traced_job_uses_the_climate_service() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    let job = demo.finish("/api/traced", &json!({ "requestId": "r-1", "category": "fog" })).await;
    assert_eq!((&job["status"], &job["progress"]["percent"]), (&json!("Completed"), &json!(100.0)), "{job}");
    let result = job["result"].as_object().expect("a result");
    assert_eq!(result.keys().collect::<Vec<_>>(), ["executionTime", "processedAt", "processedData"]);
    assert_eq!(result["processedData"].as_array().map(Vec::len), Some(23), "no fog in a January of New York");
    assert_eq!(
        result["processedData"][11],
        "Seattle, January: 17 days of fog, -0.5 to 17.2 °C, 6.6 °C on average, 0.0 mm, wind 2.3 m/s"
    );
    let time = result["executionTime"].as_str().expect("a time span");
    assert!(time.starts_with("00:00:") && time.len() == "00:00:00.0000000".len() && time > "00:00:00.0000000");

    let job = demo.finish("/api/traced", &json!({ "requestId": "r-2", "category": "hail" })).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("Failed"), &json!("UNKNOWN_CATEGORY")));
    assert_eq!((&job["attempt"], &job["error"]["status"]), (&json!(1), &json!(404)));
}

#[tokio::test]
async fn trace_of_a_job_reaches_the_climate_service() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_PROPAGATION", "child")]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = demo.posting("/api/traced", &json!({ "requestId": "r-1", "category": "fog" }));
    let answer = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01")).send().await;
    let job: Value = answer.expect("an answer").json().await.expect("a job");
    demo.ended(&format!("/jobs/{}", job["id"].as_str().expect("an id"))).await;
    until("a line of the climate service", || demo.log().contains("computing monthly statistics")).await;
    let log = demo.log();
    let mut lines = log.lines().filter(|line| line.contains("computing monthly statistics"));
    let line: Value = serde_json::from_str(lines.next().expect("a line")).expect("a JSON line");
    assert_eq!((&line["trace_id"], &line["rows"]), (&json!(trace), &json!(139)));
}

#[tokio::test]
async fn ledger_has_every_attempt() {
    let folder = Folder::new();
    let vars = [("AE_LEDGER", "ledger.csv"), ("AE_MAX_RETRIES", "2"), ("AE_RETRY_BASE_SECONDS", "0.01")];
    let demo = Demo::start(&folder, &vars).await;
    let fails = demo.finish("/api/unreliable", &json!({ "failureRate": 1, "seed": 7 })).await;
    assert_eq!((&fails["status"], &fails["attempt"]), (&json!("Failed"), &json!(3)));
    assert_eq!(fails["error"]["code"], "UNRELIABLE");
    let works = demo.finish("/api/unreliable", &json!({ "failureRate": 0 })).await;
    assert_eq!((&works["status"], &works["result"]["attempt"]), (&json!("Completed"), &json!(1)));
    let others = [
        demo.finish("/api/process-data", &json!({ "category": "fog" })).await,
        demo.finish("/api/traced", &json!({ "requestId": "r-1", "category": "fog" })).await,
        demo.finish("/api/performance", &json!({ "itemCount": 1 })).await,
        demo.finish("/api/sleep", &json!({ "seconds": 0 })).await,
    ];
    let once = others.iter().chain([&works]).map(|job| (job, 1));
    let expected: BTreeMap<String, Vec<String>> = (1..=3)
        .map(|attempt| (&fails, attempt))
        .chain(once)
        .map(|(job, attempt)| format!("{},{attempt},{}", job["id"].as_str().expect("an id"), demo.pid()))
        .map(|attempt| (attempt, vec!["start".to_owned(), "end".to_owned()]))
        .collect();
    assert_eq!(ledger(&folder), expected);
}

#[tokio::test]
async fn sleep_reports_progress_and_can_be_canceled() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_LEDGER", "ledger.csv")]).await;
    let job = demo.finish("/api/sleep", &json!({ "seconds": 0.3 })).await;
    assert_eq!((&job["status"], &job["progress"]["total"]), (&json!("Completed"), &json!(300)));
    assert!(job["result"]["sleptSeconds"].as_f64().is_some_and(|slept| (0.3..5.0).contains(&slept)), "{job}");

    let path = demo.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    let moved = |job: &Value| job["progress"]["completed"].as_u64().is_some_and(|millis| millis > 0);
    demo.job_when(&path, moved).await;
    assert_eq!(demo.post(&format!("{path}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    assert_eq!(demo.ended(&path).await["status"], "Canceled");
    assert!(ledger(&folder).values().all(|lines| lines.len() == 2), "a canceled attempt has an end");
    let lines = |text: &str| demo.log().matches(text).count();
    until("the lines of both attempts", || (lines("sleep started"), lines("sleep ended")) == (2, 2)).await;
}

#[tokio::test]
async fn configured_timeout_overrides_that_of_sleep() {
    let folder = Folder::new();
    let vars = [("AE_JOB_TIMEOUT_SECONDS", "0.2"), ("AE_MAX_RETRIES", "0")];
    let demo = Demo::start(&folder, &vars).await;
    let job = demo.finish("/api/sleep", &json!({ "seconds": 3000 })).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("Failed"), &json!("JOB_TIMEOUT")));
}

#[tokio::test]
async fn role_decides_routes_and_handlers() {
    let folder = Folder::new();
    let api = Demo::start(&folder, &[("AE_ROLE", "api")]).await;
    assert_eq!(climate(&api), None, "the API role has no climate service");
    let path = api.submit("/api/sleep", &json!({ "seconds": 0 })).await;
    let job: Value = api.get(&path).await.json().await.expect("a job");
    assert_eq!((&job["status"], &job["attempt"]), (&json!("Queued"), &json!(0)));

    let worker = Demo::start(&folder, &[("AE_ROLE", "worker")]).await;
    until("the climate service", || climate(&worker).is_some()).await;
    let refused = worker.post("/api/sleep", &json!({ "seconds": 0 })).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(worker.ended(&path).await["status"], "Completed", "the worker role has job routes");
}

#[tokio::test]
async fn concurrent_processes_share_the_data() {
    let folder = Folder::new();
    let (one, two, three) =
        tokio::join!(Demo::start(&folder, &[]), Demo::start(&folder, &[]), Demo::start(&folder, &[]));
    for demo in [one, two, three] {
        let job = demo.finish("/api/process-data", &json!({ "category": "drizzle" })).await;
        assert_eq!(job["result"]["processedCount"], 111, "{job}");
        assert_eq!(rows_of(&folder, &job), 111);
    }
}

#[tokio::test]
async fn stop_with_running_job_is_clean() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_SHUTDOWN_SECONDS", "0.2"), ("AE_LEDGER", "ledger.csv")]).await;
    let path = demo.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    demo.job_when(&path, |job| job["status"] == "InProgress").await;
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    assert!(ledger(&folder).values().all(|lines| lines.len() == 2), "a released attempt has an end");
}

#[tokio::test]
async fn stop_ignores_open_climate_connection() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    until("the address in the log", || climate(&demo).is_some()).await;
    let address = climate(&demo).expect("an address");
    // The handler's connection stays open too.
    demo.finish("/api/traced", &json!({ "requestId": "r-1", "category": "fog" })).await;
    let mut open = TcpStream::connect(address).await.expect("a connection");
    open.write_all(b"POST /monthly HTTP/1.1\r\nhost: climate\r\nexpect: 100-continue\r\n").await.expect("a write");
    open.write_all(b"content-type: application/json\r\ncontent-length: 100\r\n\r\n").await.expect("a write");
    // The service waits for the body, which never comes.
    let mut answer = [0; "HTTP/1.1 100 Continue".len()];
    support::in_time("100", open.read_exact(&mut answer)).await.expect("an answer");
    let began = std::time::Instant::now();
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[tokio::test]
async fn invalid_setting_is_one_line_and_exit_code_2() {
    let folder = Folder::new();
    for (name, value) in [
        ("AE_BIND", "8080"),
        ("AE_ALLOW_VOLATILE", "maybe"),
        ("AE_BIND", "256.1.1.1:0"),
        ("AE_STORE", "file:jobs"),
        ("AE_ROLE", "boss"),
        ("AE_LEDGER", "no/such/folder/ledger.csv"),
        ("AE_DATA", "no/such/folder/weather.db"),
        ("AE_LOG_FORMAT", "xml"),
        ("AE_LOG_DIR", "/dev/null/logs"),
        ("RUST_LOG", "info,a=b=c"),
        ("AE_LEASE_SECONDS", "soon"),
        ("AE_CONCURRENCY", "0"),
        ("AE_ALERT_INTERVAL_SECONDS", "0"),
        ("AE_ALERT_SLOW_SECONDS", "soon"),
        ("AE_ALERT_LOG_MIN_SEVERITY", "urgent"),
    ] {
        let out = folder.run(&[(name, value)]).await;
        let line = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{name}={value}: {line}");
        assert!(line.contains(name) && line.lines().count() == 1, "{line}");
        assert!(line.contains(value) && out.stdout.is_empty(), "{line}");
    }
}

#[tokio::test]
async fn password_is_not_printed() {
    let folder = Folder::new();
    for url in
        ["redis://user:s3cret@localhost:port/0", "postgres://user:s3cret@localhost:port/jobs", "redis:user:s3cret"]
    {
        let out = folder.run(&[("AE_STORE", url)]).await;
        let line = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), line.lines().count()), (Some(2), 1), "{line}");
        assert!(line.starts_with("invalid AE_STORE ") && !line.contains("s3cret"), "{line}");
    }
}

#[tokio::test]
async fn incomplete_alert_sender_is_exit_code_2() {
    let folder = Folder::new();
    let smtp = ("AE_ALERT_SMTP_URL", "smtps://ops:s3cret@127.0.0.1");
    for (vars, expected) in [
        (&[smtp][..], "AE_ALERT_EMAIL_FROM is not set: expected an e-mail address, because AE_ALERT_SMTP_URL is set"),
        (
            &[smtp, ("AE_ALERT_EMAIL_FROM", "demo@example.com"), ("AE_ALERT_EMAIL_TO", "ops")],
            "invalid AE_ALERT_EMAIL_TO \"ops\": ",
        ),
    ] {
        let out = folder.run(vars).await;
        let line = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), line.lines().count()), (Some(2), 1), "{line}");
        assert!(line.starts_with(expected) && !line.contains("s3cret"), "{line}");
    }
}

#[tokio::test]
async fn second_sigterm_ends_the_drain() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    let path = demo.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    demo.job_when(&path, |job| job["status"] == "InProgress").await;
    let began = std::time::Instant::now();
    demo.terminate().await.expect("a signal");
    // Submissions are rejected as soon as the first signal is handled.
    while demo.post("/api/sleep", &json!({ "seconds": 1 })).await.status() == 202 {
        tokio::task::yield_now().await;
    }
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    assert!(began.elapsed().as_secs() < 10, "the drain was not cut short: {:?}", began.elapsed());
}

#[tokio::test]
async fn occupied_port_is_exit_code_1() {
    let folder = Folder::new();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let out = folder.run(&[("AE_BIND", &address), ("RUST_LOG", "off")]).await;
    let line = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    let expected =
        format!("cannot listen on {address}: another program uses this port. Set AE_BIND to another address");
    assert!(line.starts_with(&expected) && line.contains("AE_BIND=127.0.0.1:0 picks"), "{line}");
}
