//! What becomes of jobs when processes die, and when several share them: all on the store that is the default.

mod support;

use std::{collections::BTreeMap, fs};

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time};

/// Starts of each job's attempts, by the ledger.
fn starts(folder: &Folder) -> BTreeMap<String, usize> {
    let ledger = fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    let mut starts = BTreeMap::new();
    for line in ledger.lines().filter(|line| line.ends_with("start")) {
        *starts.entry(line.split(',').next().expect("a job").to_owned()).or_default() += 1;
    }
    starts
}

#[tokio::test]
async fn jobs_survive_a_killed_process() {
    let folder = Folder::new();
    let ledger = folder.join("ledger");
    let vars = [("AE_LEDGER", ledger.to_str().expect("UTF-8")), ("AE_LEASE_SECONDS", "1"), ("AE_CONCURRENCY", "4")];
    let demo = Demo::start(&folder, &vars).await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(demo.submit("/api/sleep", &json!({ "seconds": 0.5 })).await);
    }
    let running = |job: &Value| job["status"] == "InProgress";
    for job in &jobs[..4] {
        demo.job_when(job, running).await;
    }
    demo.kill().await;
    let demo = Demo::start(&folder, &vars).await;
    for job in &jobs {
        let ended = demo.ended(job).await;
        assert_eq!(ended["status"], "Completed", "{ended}");
        let (losses, retries) = (ended["lossCount"].as_u64().expect("a count"), &ended["retryCount"]);
        assert!(losses <= 1 && *retries == 0 && ended["attempt"] == 1 + losses, "{ended}");
        // A worker that dies between claim and start has lost an attempt that never began.
        let starts = starts(&folder)[ended["id"].as_str().expect("an id")] as u64;
        assert!((1..=1 + losses).contains(&starts), "{starts} starts: {ended}");
    }
    assert!(demo.stop().await.expect("it ends").success());
}

#[tokio::test]
async fn one_process_accepts_and_another_works() {
    let folder = Folder::new();
    let api = Demo::start(&folder, &[("AE_ROLE", "api")]).await;
    let job = api.submit("/api/sleep", &json!({ "seconds": 0 })).await;
    assert_eq!(api.get(&job).await.json::<Value>().await.expect("a job")["waiting"]["reason"], "noWorker");
    let worker = Demo::start(&folder, &[("AE_ROLE", "worker")]).await;
    assert_eq!(api.ended(&job).await["status"], "Completed");
    // Held by the one, ended by the other.
    let request = api.posting("/api/sleep", &json!({ "seconds": 0.2 })).header("prefer", "wait=30");
    let answer = in_time("the end", request.send()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.expect("a job")["status"], "Completed");
    // Asked of the one, heard by the other.
    let long = api.submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    api.job_when(&long, |job| job["status"] == "InProgress").await;
    assert_eq!(api.post(&format!("{long}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    assert_eq!(worker.ended(&long).await["status"], "Canceled");
    assert!(worker.stop().await.expect("it ends").success());
    assert!(api.stop().await.expect("it ends").success());
}
