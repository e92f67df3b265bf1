//! Runs Schemathesis on the demo: calls all operations of its OpenAPI document with valid and invalid data.

mod support;

use std::{path::Path, time::Duration};

use serde_json::Value;
use support::{Demo, Folder};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(300);

/// The route from which Schemathesis reads the document. It leaves out this operation, without a word in its output.
const DOCUMENT: &str = "/openapi.json";

/// The number of operations in the demo's document that Schemathesis calls.
async fn operations(demo: &Demo) -> usize {
    let document = reqwest::get(demo.url(DOCUMENT)).await.expect("an answer");
    let document: Value = document.json().await.expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let methods = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
    assert!(paths[DOCUMENT]["get"].is_object(), "the operation that is left out");
    let called = paths.iter().filter(|(path, _)| *path != DOCUMENT);
    called.map(|(_, path)| methods.iter().filter(|method| path.get(method).is_some()).count()).sum()
}

#[tokio::test]
async fn schemathesis_finds_no_failure() {
    let folder = Folder::new();
    // Short jobs, so that streams are short.
    let demo = Demo::start(&folder, &[("AE_JOB_TIMEOUT_SECONDS", "2"), ("AE_MAX_RETRIES", "0")]).await;
    let operations = operations(&demo).await;
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = package.join("../../target/tools/schemathesis/bin/schemathesis");
    assert!(program.exists(), "Schemathesis is not installed: run `cargo xtask test`");
    let mut command = Command::new(program);
    command.current_dir(folder.join(".")).kill_on_drop(true);
    command.arg("--config-file").arg(package.join("tests/schemathesis.toml"));
    // A fixed seed, so that a failure can be reproduced.
    command.args(["run", "--seed", "1", "--max-examples", "25", &demo.url(DOCUMENT)]);
    let ran = tokio::time::timeout(TIMEOUT, command.output()).await.expect("an exit").expect("a start");
    let output = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{output}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(output.contains(&format!("{operations} selected / {operations} total")), "{operations}: {output}");
    demo.stop().await.expect("an exit");
}
