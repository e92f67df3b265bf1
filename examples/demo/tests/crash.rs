//! Jobs when processes die and when several processes share them, with the default store.

mod support;

use std::{collections::BTreeMap, time::Duration};

use reqwest::StatusCode;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time, until};

/// Number of started attempts of each job, according to the ledger.
fn starts(folder: &Folder) -> BTreeMap<String, usize> {
    let mut starts = BTreeMap::new();
    for [job, .., what] in folder.ledger() {
        *starts.entry(job).or_default() += usize::from(what == "start");
    }
    starts
}

/// Outcomes of the attempts of a job, oldest first.
fn outcomes(job: &Value) -> Vec<&str> {
    let attempts = job["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["outcome"].as_str().expect("an outcome")).collect()
}

/// Freezes the process while it does not hold the write lock, which would block all other processes.
async fn freeze_without_write_lock(folder: &Folder, demo: &Demo) {
    let lock = Connection::open(folder.join("async-endpoints.db")).expect("the file");
    lock.busy_timeout(Duration::from_secs(30)).expect("a setting");
    lock.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    demo.freeze().await;
    lock.execute_batch("ROLLBACK").expect("a rollback");
}

fn runs(job: &Value) -> bool {
    job["status"] == "InProgress"
}

#[tokio::test]
async fn jobs_survive_a_killed_process() {
    let folder = Folder::new();
    let vars = [("AE_LEDGER", "ledger"), ("AE_LEASE_SECONDS", "1"), ("AE_CONCURRENCY", "4")];
    let demo = Demo::start(&folder, &vars).await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(demo.submit("/api/sleep", &json!({ "seconds": 0.5 })).await);
    }
    for job in &jobs[..4] {
        demo.job_when(job, runs).await;
    }
    demo.kill().await;
    let demo = Demo::start(&folder, &vars).await;
    for job in &jobs {
        let ended = demo.ended(job).await;
        assert_eq!(ended["status"], "Completed", "{ended}");
        let (losses, retries) = (ended["lossCount"].as_u64().expect("a count"), &ended["retryCount"]);
        assert!(losses <= 1 && *retries == 0 && ended["attempt"] == 1 + losses, "{ended}");
        // A worker that dies between claim and start loses an attempt that has no start in the ledger.
        let starts = starts(&folder)[ended["id"].as_str().expect("an id")] as u64;
        assert!((1..=1 + losses).contains(&starts), "{starts} starts: {ended}");
    }
    assert!(demo.stop().await.expect("an exit").success());
}

#[tokio::test]
async fn api_and_worker_process_share_jobs() {
    let folder = Folder::new();
    let api = Demo::start(&folder, &[("AE_ROLE", "api")]).await;
    let job = api.submit("/api/sleep", &json!({ "seconds": 0 })).await;
    assert_eq!(api.get(&job).await.json::<Value>().await.expect("a job")["waiting"]["reason"], "noWorker");
    let worker = Demo::start(&folder, &[("AE_ROLE", "worker")]).await;
    assert_eq!(api.ended(&job).await["status"], "Completed");
    // The API process holds the request until the worker has ended the job.
    let request = api.posting("/api/sleep", &json!({ "seconds": 0.2 })).header("prefer", "wait=30");
    let answer = in_time("the end", request.send()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.expect("a job")["status"], "Completed");
    // A cancellation at the API process reaches the worker.
    let long = api.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    api.job_when(&long, runs).await;
    assert_eq!(api.post(&format!("{long}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    assert_eq!(worker.ended(&long).await["status"], "Canceled");
    assert!(worker.stop().await.expect("an exit").success());
    assert!(api.stop().await.expect("an exit").success());
}

#[tokio::test]
async fn restart_uses_up_no_attempt() {
    let folder = Folder::new();
    let vars = [("AE_LEDGER", "ledger"), ("AE_SHUTDOWN_SECONDS", "0.1"), ("AE_CONCURRENCY", "4")];
    let mut jobs = Vec::new();
    for _restart in 0..6 {
        let demo = Demo::start(&folder, &vars).await;
        for seconds in [0.05, 0.05, 0.6] {
            jobs.push(demo.submit("/api/sleep", &json!({ "seconds": seconds })).await);
        }
        // The oldest unfinished job runs first.
        for job in &jobs {
            let busy = demo.job_when(job, |job| runs(job) || !job["completedAt"].is_null()).await;
            if runs(&busy) {
                break;
            }
        }
        assert_eq!(demo.stop().await.expect("an exit").code(), Some(0), "{}", jobs.len());
    }
    let demo = Demo::start(&folder, &vars).await;
    let mut releases = 0;
    for job in &jobs {
        let ended = demo.ended(job).await;
        let counts = (&ended["status"], &ended["retryCount"], &ended["lossCount"]);
        assert_eq!(counts, (&json!("Completed"), &json!(0), &json!(0)), "{ended}");
        let (outcomes, attempt) = (outcomes(&ended), ended["attempt"].as_u64().expect("a count") as usize);
        let released = outcomes.iter().filter(|outcome| **outcome == "released").count();
        assert_eq!((attempt, outcomes.len(), outcomes.last()), (1 + released, attempt, Some(&"completed")), "{ended}");
        let started = starts(&folder)[ended["id"].as_str().expect("an id")];
        assert!((1..=attempt).contains(&started), "{started} starts: {ended}");
        releases += released;
    }
    println!("{releases} attempts of {} jobs were released in 6 restarts", jobs.len());
    assert!(releases >= 3, "{releases} attempts were released, expected at least 3");
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
}

#[tokio::test]
async fn job_longer_than_five_leases_runs_once() {
    let folder = Folder::new();
    let vars = [("AE_LEDGER", "ledger"), ("AE_LEASE_SECONDS", "1")];
    let demo = Demo::start(&folder, &vars).await;
    let job = demo.submit("/api/sleep", &json!({ "seconds": 5.2 })).await;
    demo.job_when(&job, runs).await;
    // This process would claim the job if its lease expired.
    let other = Demo::start(&folder, &vars).await;
    let ended = other.ended(&job).await;
    assert_eq!((&ended["status"], outcomes(&ended)), (&json!("Completed"), vec!["completed"]), "{ended}");
    assert_eq!((&ended["attempt"], &ended["lossCount"]), (&json!(1), &json!(0)), "{ended}");
    assert_eq!(folder.ledger().len(), 2, "one start and one end: {:?}", folder.ledger());
}

#[tokio::test]
async fn worker_frozen_past_its_lease_settles_nothing() {
    let folder = Folder::new();
    let vars = [("AE_LEDGER", "ledger"), ("AE_LEASE_SECONDS", "1")];
    let frozen = Demo::start(&folder, &vars).await;
    let job = frozen.submit("/api/sleep", &json!({ "seconds": 0.8 })).await;
    until("a start", || !folder.ledger().is_empty()).await;
    freeze_without_write_lock(&folder, &frozen).await;
    let other = Demo::start(&folder, &vars).await;
    let ended = other.ended(&job).await;
    assert_eq!((&ended["status"], outcomes(&ended)), (&json!("Completed"), vec!["lost", "completed"]), "{ended}");
    assert_eq!((&ended["lossCount"], &ended["retryCount"]), (&json!(1), &json!(0)), "{ended}");

    // After the freeze, its lease is lost.
    frozen.signal("CONT").await.expect("the file");
    let (one, two) = (frozen.pid().to_string(), other.pid().to_string());
    until("the end of the first attempt", || {
        folder.ledger().iter().any(|[.., pid, what]| *pid == one && what == "end")
    })
    .await;
    // A stop waits for pending settlements.
    assert_eq!(frozen.stop().await.expect("an exit").code(), Some(0));
    assert_eq!(other.get(&job).await.json::<Value>().await.expect("a job"), ended, "an ended job does not change");
    let ran = |pid: &str| folder.ledger().iter().filter(|[_, _, by, _]| by == pid).count();
    assert_eq!((ran(&one), ran(&two)), (2, 2), "each ran it once: {:?}", folder.ledger());
}
