//! The dashboard in a real browser. The tests of the browser are in `browser/`.

mod support;

use std::{fs, path::Path, time::Duration};

use support::{Demo, Folder};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(180);

#[tokio::test]
async fn dashboard_works_in_a_browser() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = package.join("../../target/tools/browser/node_modules");
    assert!(modules.exists(), "the driver of the browser is not installed: run `cargo xtask test`");
    let folder = Folder::new();
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link");
    for file in fs::read_dir(package.join("browser")).expect("the tests").flatten() {
        fs::copy(file.path(), folder.join(&file.file_name().to_string_lossy())).expect("a file of the tests");
    }
    let demo = Demo::start(&folder, &[("AE_STORE", "memory:"), ("AE_RETRY_BASE_SECONDS", "0.01")]).await;
    let other = Folder::new();
    let with_token = Demo::start(&other, &[("AE_STORE", "memory:"), ("AE_ADMIN_TOKEN", "secret")]).await;
    let mut node = Command::new("node");
    node.args(["--test", "--test-concurrency=4"])
        .current_dir(folder.join("."))
        .env("DEMO_URL", demo.url(""))
        .env("LOGIN_URL", with_token.url(""));
    let output = tokio::time::timeout(TIMEOUT, node.kill_on_drop(true).output()).await.expect("an exit");
    let output = output.expect("Node.js starts");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    demo.stop().await.expect("an exit");
    with_token.stop().await.expect("an exit");
}
