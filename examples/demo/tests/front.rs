//! The front door: the printed commands, and the page at `/`.

mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{Demo, Folder, in_time};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

/// Runs a printed command as a shell does.
async fn sh(command: &str) -> String {
    let output = in_time(command, Command::new("sh").args(["-c", command]).output()).await.expect("a shell");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn printed_commands_work_as_they_are() {
    let folder = Folder::new();
    let mut demo = folder.command(&[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the demo starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let mut printed = Vec::new();
    while printed.last().is_none_or(|line: &String| !line.starts_with("Open ")) {
        printed.push(in_time("a line", lines.next_line()).await.expect("text").expect("a line"));
    }
    let url = printed[0].strip_prefix("listening on ").expect("an address first");
    assert!(printed.last().expect("a line").starts_with(&format!("Open {url}/dashboard ")), "{printed:#?}");
    let commands: Vec<_> = printed.iter().filter(|line| line.starts_with("curl ")).collect();
    let [process, sleep, follow] = commands.as_slice() else { panic!("{printed:#?}") };
    let job: Value = serde_json::from_str(&sh(process).await).expect("a job");
    assert_eq!((&job["status"], &job["result"]["processedCount"]), (&"Completed".into(), &1087.into()), "{job}");
    // A short sleep, since the stream lasts as long as the job.
    let job: Value = serde_json::from_str(&sh(&sleep.replace("20}", "0.1}")).await).expect("a job");
    assert_eq!(job["name"], "Sleep", "{job}");
    assert!(sh(follow).await.contains("\"status\":\"Completed\""));
    demo.kill().await.expect("a running process");
}

#[tokio::test]
async fn every_link_of_the_page_answers() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[]).await;
    let answer = demo.get("/").await;
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let page = answer.text().await.expect("a page");
    assert!(
        page.contains(&format!("curl -s {}/api/process-data ", demo.url(""))) && !page.contains("<script"),
        "{page}"
    );
    let links: Vec<&str> = page.split("href=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
    for expected in ["/dashboard", "/openapi.json", "/health", "/metrics", "/alerts"] {
        assert!(links.contains(&expected), "{expected} is missing: {links:?}");
    }
    for link in links {
        assert_eq!(demo.get(link).await.status(), 200, "{link}");
    }
    demo.stop().await.expect("an exit");
}

#[tokio::test]
async fn worker_page_has_no_commands() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_ROLE", "worker")]).await;
    let page = demo.get("/").await.text().await.expect("a page");
    assert!(!page.contains("curl") && page.contains("href=\"/metrics\""), "{page}");
    demo.stop().await.expect("an exit");
}
