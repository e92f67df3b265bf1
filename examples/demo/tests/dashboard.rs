//! The dashboard in a real browser. The tests of the browser are in `browser/`.

#[path = "dashboard/service.rs"]
mod service;
mod support;

use std::{fs, path::Path, time::Duration};

use service::Service;
use support::{Demo, Folder};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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
    let service = Service::start().await;
    let env =
        [("DEMO_URL", demo.url("")), ("LOGIN_URL", with_token.url("")), ("SERVICE_URL", service.url().to_owned())];
    // To write tests: `SERVE=1` keeps the servers until Ctrl-C.
    if std::env::var_os("SERVE").is_some() {
        println!("{}", env.map(|(name, value)| format!("{name}={value}")).join(" "));
        service.served().await;
    } else {
        // The first paint comes before the other tests, whose work would make it later.
        for args in [&["paint.mjs"] as &[_], &["--test-concurrency=3"]] {
            let mut node = Command::new("node");
            node.args(["--test", "--test-reporter=spec"])
                .args(args)
                .current_dir(folder.join("."))
                .envs(env.clone())
                .kill_on_drop(true);
            let output = tokio::time::timeout(TIMEOUT, node.output()).await.expect("an exit").expect("Node.js starts");
            println!("{}", String::from_utf8_lossy(&output.stdout));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        service.stop().await;
    }
    demo.stop().await.expect("an exit");
    with_token.stop().await.expect("an exit");
}
