//! Follows jobs at one process while another process runs them, and over a restart.

mod support;

use std::time::{Duration, SystemTime};

use async_endpoints_testkit::server::RedisServer;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Demo, Folder, events::Events, in_time};

/// Time since the last update of the job.
fn age(job: &Value) -> Duration {
    let at: Timestamp = job["lastUpdatedAt"].as_str().expect("a time").parse().expect("a time");
    SystemTime::now().duration_since(at.into()).unwrap_or_default()
}

/// Checks the delay of each change. One in ten may exceed the promise, because the machine is busy with other tests.
fn check_delays(how: &str, promise: Duration, mut ages: Vec<Duration>) {
    ages.sort_unstable();
    let (median, most, last) = (ages[ages.len() / 2], ages[ages.len() * 9 / 10], ages[ages.len() - 1]);
    println!("{how}: {} changes, median {median:?}, p90 {most:?}, last {last:?}", ages.len());
    assert!(ages.len() >= 20, "{how}: only {} changes", ages.len());
    assert!(most <= promise && last <= Duration::from_secs(2), "{how}: {ages:?}");
}

async fn by_stream(demo: &Demo, job: &str) -> Vec<Duration> {
    let (mut events, mut ages) = (Events::of(demo, job, None).await, Vec::new());
    // The first event is the current state.
    events.next().await.expect("the current state");
    while let Some(event) = events.next().await {
        ages.push(age(&event.job));
    }
    ages
}

async fn by_long_polls(demo: &Demo, job: &str) -> Vec<Duration> {
    let (mut version, mut ages) = (String::new(), Vec::new());
    loop {
        let poll = demo.getting(job).header("if-none-match", &version).header("prefer", "wait=30");
        let answer = in_time("a change", poll.send()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let is_first = std::mem::replace(&mut version, answer.headers()["etag"].to_str().expect("text").to_owned());
        let job: Value = answer.json().await.expect("a job");
        if !is_first.is_empty() {
            ages.push(age(&job));
        }
        if !job["completedAt"].is_null() {
            return ages;
        }
    }
}

/// Delays of the ends of jobs whose submission waits for the end.
async fn by_held_waits(demo: &Demo) -> Vec<Duration> {
    let mut ages = Vec::new();
    for n in 0..25 {
        let seconds = 0.05 + 0.007 * f64::from(n);
        let request = demo.posting("/api/sleep", &json!({ "seconds": seconds })).header("prefer", "wait=30");
        let answer = in_time("the end", request.send()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        ages.push(age(&answer.json().await.expect("a job")));
    }
    ages
}

async fn check_delays_between_processes(store: &str, promise: Duration) {
    let folder = Folder::new();
    let api = Demo::start(&folder, &[("AE_STORE", store), ("AE_ROLE", "api")]).await;
    let worker = [("AE_STORE", store), ("AE_ROLE", "worker"), ("AE_CONCURRENCY", "8")];
    let _worker = Demo::start(&folder, &worker).await;
    // Five progress reports per second.
    let job = api.submit("/api/sleep", &json!({ "seconds": 5.5 })).await;
    api.job_when(&job, |job| job["status"] == "InProgress").await;
    let (stream, polls, waits) = tokio::join!(by_stream(&api, &job), by_long_polls(&api, &job), by_held_waits(&api));
    check_delays("event stream", promise, stream);
    check_delays("long polls", promise, polls);
    check_delays("held waits", promise, waits);
}

#[tokio::test]
async fn change_over_sqlite_arrives_in_300_ms() {
    check_delays_between_processes("sqlite:jobs.db", Duration::from_millis(300)).await;
}

#[tokio::test]
async fn change_over_redis_arrives_in_100_ms() {
    let redis = RedisServer::start();
    check_delays_between_processes(&redis.url(), Duration::from_millis(100)).await;
}

#[tokio::test]
async fn stream_resumes_after_a_restart() {
    let folder = Folder::new();
    let vars = [("AE_SHUTDOWN_SECONDS", "0.1")];
    let demo = Demo::start(&folder, &vars).await;
    let job = demo.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    let (mut events, mut known) = (Events::of(&demo, &job, None).await, 0);
    while let Some(event) = events.next().await {
        assert!(event.id > known, "{} after {known}", event.id);
        known = event.id;
        if event.job["progress"]["completed"].as_u64() > Some(0) {
            break;
        }
    }
    assert!(demo.stop().await.expect("an exit").success());
    while let Some(event) = events.next().await {
        known = event.id;
    }

    let demo = Demo::start(&folder, &vars).await;
    let mut events = Events::of(&demo, &job, Some(known)).await;
    loop {
        let event = events.next().await.expect("an event");
        assert!(event.id > known, "{} is not newer than {known}", event.id);
        known = event.id;
        if event.job["attempt"] == 2 && event.job["status"] == "InProgress" {
            break;
        }
    }
    assert_eq!(demo.post(&format!("{job}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    let mut last = Value::Null;
    while let Some(event) = events.next().await {
        assert!(event.id > known, "{} after {known}", event.id);
        (known, last) = (event.id, event.job);
    }
    assert_eq!(last["status"], "Canceled", "the last event has the end of the job");
    let nothing = demo.getting(&format!("{job}/events")).header("last-event-id", known).send();
    assert_eq!(in_time("an answer", nothing).await.expect("an answer").status(), StatusCode::NO_CONTENT);
}
