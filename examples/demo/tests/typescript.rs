//! Generates the types of a TypeScript client from the demo's OpenAPI document, compiles the client and runs it.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use support::{Demo, Folder};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(120);

/// What the client prints. `data/weather.csv` has this number of rainy days.
const PRINTED: &str = "\
Completed: 1087 observations
replayed: true
Sleep: InProgress, Canceled
Unreliable failed: UNRELIABLE (500)
refused: INVALID_REQUEST (422)
";

/// A folder with the example and the installed packages.
fn example(folder: &Folder) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = package.join("../../target/tools/typescript/node_modules");
    assert!(modules.exists(), "the TypeScript compiler is not installed: run `cargo xtask test`");
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link");
    for name in ["package.json", "tsconfig.json", "client.ts"] {
        fs::copy(package.join("typescript").join(name), folder.join(name)).expect("a file of the example");
    }
    folder.join(".")
}

/// Runs Node.js with a script and arguments. Fails the test if the script fails.
async fn node(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("node");
    command.args(args).current_dir(folder).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        tokio::time::timeout(TIMEOUT, command.output()).await.expect("an exit").expect("Node.js starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "node {args:?}: {stdout}{stderr}");
    stdout.into_owned()
}

#[tokio::test]
async fn typescript_client_is_generated_compiled_and_run() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_RETRY_BASE_SECONDS", "0.01")]).await;
    let example = example(&folder);
    fs::write(folder.join("openapi.json"), demo.get("/openapi.json").await.bytes().await.expect("a document"))
        .expect("the folder is writable");
    let generator = "node_modules/openapi-typescript/bin/cli.js";
    node(&example, &[generator, "openapi.json", "--output", "schema.d.ts"]).await;
    node(&example, &["node_modules/typescript/bin/tsc"]).await;
    assert_eq!(node(&example, &["client.js", &demo.url("")]).await, PRINTED);
    demo.stop().await.expect("an exit");
}
