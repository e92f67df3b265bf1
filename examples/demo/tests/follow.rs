//! Following a job at one process while another works on it, and over a restart.

mod support;

use std::time::{Duration, SystemTime};

use async_endpoints_testkit::server::RedisServer;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Demo, Folder, events::Events, in_time};

/// How old what this job tells is, by its own time.
fn age(job: &Value) -> Duration {
    let at: Timestamp = job["lastUpdatedAt"].as_str().expect("a time").parse().expect("a time");
    SystemTime::now().duration_since(at.into()).unwrap_or_default()
}

/// How old each change was when it was seen. A machine that is busy with other tests is given more time than is
/// promised, but for one in ten only.
fn judge(how: &str, promise: Duration, mut ages: Vec<Duration>) {
    ages.sort_unstable();
    let (median, most, last) = (ages[ages.len() / 2], ages[ages.len() * 9 / 10], ages[ages.len() - 1]);
    println!("{how}: {} changes, median {median:?}, p90 {most:?}, last {last:?}", ages.len());
    assert!(ages.len() >= 20, "{how}: {} changes are too few", ages.len());
    assert!(most <= promise && last <= Duration::from_secs(2), "{how}: {ages:?}");
}

async fn by_stream(demo: &Demo, job: &str) -> Vec<Duration> {
    let (mut events, mut ages) = (Events::of(demo, job, None).await, Vec::new());
    // The first tells what was before.
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

/// Ends of jobs that were waited for from their submission on, one after the other.
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

async fn what_one_changes_another_tells(store: &str, promise: Duration) {
    let folder = Folder::new();
    let api = Demo::start(&folder, &[("AE_STORE", store), ("AE_ROLE", "api")]).await;
    let worker = [("AE_STORE", store), ("AE_ROLE", "worker"), ("AE_CONCURRENCY", "8")];
    let _worker = Demo::start(&folder, &worker).await;
    // Five reports of progress in a second.
    let job = api.submit("/api/sleep", &json!({ "seconds": 5.5 })).await;
    api.job_when(&job, |job| job["status"] == "InProgress").await;
    let (stream, polls, waits) = tokio::join!(by_stream(&api, &job), by_long_polls(&api, &job), by_held_waits(&api));
    judge("event stream", promise, stream);
    judge("long polls", promise, polls);
    judge("held waits", promise, waits);
}

#[tokio::test]
async fn what_one_process_changes_another_tells_soon() {
    what_one_changes_another_tells("sqlite:jobs.db", Duration::from_millis(300)).await;
}

#[tokio::test]
async fn over_redis_sooner() {
    let redis = RedisServer::start();
    what_one_changes_another_tells(&redis.url(), Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_stream_goes_on_after_a_restart() {
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
    assert!(demo.stop().await.expect("it ends").success());
    while let Some(event) = events.next().await {
        known = event.id;
    }

    let demo = Demo::start(&folder, &vars).await;
    let mut events = Events::of(&demo, &job, Some(known)).await;
    loop {
        let event = events.next().await.expect("the job goes on");
        assert!(event.id > known, "{} was told before, or is older than {known}", event.id);
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
    assert_eq!(last["status"], "Canceled", "the end is told before the stream ends");
    let nothing = demo.getting(&format!("{job}/events")).header("last-event-id", known).send();
    assert_eq!(in_time("an answer", nothing).await.expect("an answer").status(), StatusCode::NO_CONTENT);
}
