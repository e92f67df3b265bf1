//! The demo while its log and its stdout cannot be written.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use support::{Demo, Folder, in_time};

/// Starts a demo whose log is a pipe. Returns the pipe and the demo's address, which is read from stdout.
fn start(folder: &Folder) -> (Child, std::io::PipeReader, String) {
    let (log, stderr) = std::io::pipe().expect("a pipe");
    let (address, stdout) = std::io::pipe().expect("a pipe");
    let vars = [("AE_STORE", "memory:"), ("AE_SHUTDOWN_SECONDS", "5")];
    let child = folder.command(&vars).stdout(stdout).stderr(stderr).spawn().expect("the demo starts");
    let mut line = String::new();
    BufReader::new(address).read_line(&mut line).expect("an address");
    let url = line.strip_prefix("listening on ").expect("an address").trim_end().to_owned();
    (child, log, url)
}

/// Runs a job whose handler logs two lines.
async fn job(client: &Client, url: &str) {
    let request = client.post(format!("{url}/api/sleep")).header("prefer", "wait=30");
    let answer = request.json(&json!({ "seconds": 0 })).send().await.expect("an answer");
    let (status, job) = (answer.status(), answer.json::<Value>().await.expect("a job"));
    assert!(status == StatusCode::OK && job["status"] == "Completed", "{status} {job}");
}

async fn stops(mut demo: Child) {
    let pid = demo.id().expect("a running process").to_string();
    Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().await.expect("a running process");
    let status = in_time("the end of the demo", demo.wait()).await.expect("an exit");
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn closed_log_loses_lines_only() {
    let folder = Folder::new();
    let (demo, log, url) = start(&folder);
    drop(log);
    let client = Client::new();
    in_time("a job", job(&client, &url)).await;
    in_time("lost lines", async {
        loop {
            let page = client.get(format!("{url}/metrics")).send().await.expect("an answer");
            let page = page.text().await.expect("a page");
            let lost = |line: &str| line.strip_prefix("async_log_dropped_total{result=\"failed\"} ")?.parse().ok();
            if page.lines().find_map(lost).is_some_and(|lost: u64| lost >= 2) {
                break;
            }
        }
    })
    .await;
    stops(demo).await;
}

#[tokio::test]
async fn blocked_log_loses_lines_only() {
    let folder = Folder::new();
    let (demo, _log, url) = start(&folder);
    let client = Client::new();
    // More lines than the 64 KiB of a pipe.
    in_time("jobs", async {
        for _ in 0..400 {
            job(&client, &url).await;
        }
    })
    .await;
    stops(demo).await;
}

#[tokio::test]
async fn log_folder_has_json_lines_of_the_day() {
    let folder = Folder::new();
    let demo =
        Demo::start(&folder, &[("AE_STORE", "memory:"), ("AE_LOG_DIR", "logs"), ("AE_LOG_FORMAT", "pretty")]).await;
    in_time("a job", job(&Client::new(), &demo.url(""))).await;
    assert_eq!(demo.stop().await.expect("an exit").code(), Some(0));
    let files: Vec<_> =
        fs::read_dir(folder.join("logs")).expect("a folder").map(|file| file.expect("a file")).collect();
    let name = files[0].file_name().into_string().expect("UTF-8");
    assert!(files.len() == 1 && name.starts_with("async-endpoints-demo.") && name.ends_with(".log"), "{name}");
    let text = fs::read_to_string(files[0].path()).expect("lines");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["service"] == "async-endpoints-demo" && line["environment"] == "development"));
    assert!(lines.iter().any(|line| line["target"].as_str().is_some_and(|target| target.ends_with("sleep"))), "{text}");
}

#[tokio::test]
async fn closed_log_keeps_the_exit_code() {
    let folder = Folder::new();
    let (log, stderr) = std::io::pipe().expect("a pipe");
    drop(log);
    let mut command = folder.command(&[("AE_ROLE", "boss")]);
    let status = in_time("the end of the demo", command.stdout(Stdio::null()).stderr(stderr).status()).await;
    assert_eq!(status.expect("an exit").code(), Some(2));
}
