//! Runs other programs, such as collectors, with the demo. Dropping the handle kills the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{Folder, TIMEOUT, holds};

/// A running program.
pub(crate) struct Peer {
    child: Child,
    output: PathBuf,
}

impl Peer {
    /// Starts the program. `package` is the package that contains it.
    pub(crate) fn start(folder: &Folder, program: &Path, package: &str, args: &[&str]) -> Self {
        let output = folder.join(&format!("{}.out", program.file_name().expect("a name").display()));
        let out = fs::File::create(&output).expect("a file");
        let err = out.try_clone().expect("a file");
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.join("")).stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}; its package is {package}", program.display()));
        Self { child, output }
    }

    /// The output so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until the output contains the text.
    pub(crate) async fn wait_for_output(&self, text: &str) {
        let found = timeout(TIMEOUT, holds(|| self.output().contains(text))).await;
        assert!(found.is_ok(), "no {text:?} within {TIMEOUT:?} in {}", self.output());
    }

    /// Waits for the exit. Returns whether it was successful.
    pub(crate) async fn exits_successfully(&mut self) -> bool {
        super::in_time("the end of a peer", self.child.wait()).await.expect("a child").success()
    }
}

/// A program of the Python environment `telemetry`, which `cargo xtask test` installs.
pub(crate) fn python(program: &str) -> PathBuf {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/telemetry");
    // `rotel` is in the folder of its package, whose path contains Python's version.
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let packages = versions.map(|version| version.path().join("site-packages/rotel"));
    let mut found = packages.chain([environment.join("bin")]).map(|folder| folder.join(program));
    let found = found.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not installed: run `cargo xtask test`"))
}
