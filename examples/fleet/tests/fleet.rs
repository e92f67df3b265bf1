//! One command starts it, a killed worker's job runs elsewhere, and one signal ends it all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{process::Stdio, time::Duration};

use async_endpoints_testkit::server::RedisServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn signal(name: &str, id: &str) {
    assert!(Command::new("kill").args([name, id]).status().await.unwrap().success());
}

#[tokio::test]
async fn a_killed_workers_job_runs_elsewhere_and_one_signal_ends_all() {
    let redis = RedisServer::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_async-endpoints-fleet"));
    command.arg("127.0.0.1:0").env("REDIS_URL", redis.url()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut fleet = command.spawn().unwrap();
    let mut lines = BufReader::new(fleet.stdout.take().unwrap()).lines();
    let (mut url, mut workers) = (None, Vec::new());
    while url.is_none() || workers.len() < 2 {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        match line.strip_prefix("listening on ") {
            Some(address) => url = Some(address.to_owned()),
            None => workers.push(line.split(' ').nth(1).unwrap().to_owned()),
        }
    }
    let url = url.unwrap();
    let client = reqwest::Client::new();
    let submit = client.post(format!("{url}/api/print")).json(&json!({ "pages": 10 })).send().await.unwrap();
    let job = format!("{url}{}", submit.headers()["location"].to_str().unwrap());
    let get =
        async |query: &str| client.get(format!("{job}{query}")).send().await.unwrap().json::<Value>().await.unwrap();
    let printing = timeout(PATIENCE, async {
        loop {
            let seen = get("").await;
            if let Some(worker) = seen["progress"]["message"].as_str().and_then(|text| text.strip_prefix("by worker "))
            {
                return worker.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let printing = printing.await.unwrap();
    assert!(workers.contains(&printing), "{printing} of {workers:?}");
    signal("-KILL", &printing).await;
    let ended = timeout(PATIENCE, async {
        loop {
            let seen = get("?wait=30").await;
            if seen["status"] == "Completed" {
                return seen;
            }
        }
    });
    let ended = ended.await.unwrap();
    assert_eq!((&ended["attempt"], &ended["lossCount"]), (&json!(2), &json!(1)), "{ended}");
    let other = workers.iter().find(|worker| **worker != printing).unwrap();
    assert_eq!(ended["progress"]["message"], format!("by worker {other}"), "{ended}");
    signal("-TERM", &fleet.id().unwrap().to_string()).await;
    assert!(timeout(PATIENCE, fleet.wait()).await.unwrap().unwrap().success());
}
