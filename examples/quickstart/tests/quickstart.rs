//! Tests that the quickstart works and that the README shows its code.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

#[tokio::test]
async fn submitted_job_completes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_async-endpoints-quickstart"));
    let mut service = command.arg("127.0.0.1:0").stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap();

    let client = reqwest::Client::new();
    let accepted = client.post(format!("{url}/api/print")).json(&json!({"pages": 3})).send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    let job = loop {
        let job: Value = client.get(format!("{url}{location}")).send().await.unwrap().json().await.unwrap();
        if job["status"] == "Completed" {
            break job;
        }
        assert!(job["status"] == "Queued" || job["status"] == "InProgress", "{job}");
    };
    assert_eq!((&job["result"], &job["progress"]["percent"]), (&json!({"pages": 3}), &json!(100.0)));
}

#[test]
fn readme_shows_this_program() {
    let readme = include_str!("../../../README.md");
    let program = include_str!("../src/main.rs");
    assert!(readme.contains(program), "README.md does not show examples/quickstart/src/main.rs");
}
