//! Schemathesis calls everything that the demo's OpenAPI document describes, with right and wrong data, and follows what
//! the answers lead to.

mod support;

use std::{path::Path, time::Duration};

use support::{Demo, Folder};
use tokio::process::Command;

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let folder = Folder::new();
    // No job lasts long, so that no stream does.
    let demo = Demo::start(&folder, &[("AE_JOB_TIMEOUT_SECONDS", "2"), ("AE_MAX_RETRIES", "0")]).await;
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = package.join("../../target/tools/schemathesis/bin/schemathesis");
    assert!(program.exists(), "Schemathesis is not installed; `cargo xtask test` installs it");
    let mut command = Command::new(program);
    command.current_dir(folder.join(".")).kill_on_drop(true);
    command.arg("--config-file").arg(package.join("tests/schemathesis.toml"));
    // One set of data for ever: a run that fails can be repeated.
    command.args(["run", "--seed", "1", "--max-examples", "25", &demo.url("/openapi.json")]);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it starts");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("12 selected"), "all operations were tested: {said}");
    demo.stop().await.expect("it stops");
}
