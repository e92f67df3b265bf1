//! Programs of others that the demo is tried with: each in the test's folder, ended by its own handle.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

use super::{Folder, until};

/// A program that runs beside the demo.
pub(crate) struct Peer {
    child: Child,
    said: PathBuf,
}

impl Peer {
    /// Starts it; `package` is what it comes with.
    pub(crate) fn start(folder: &Folder, program: &Path, package: &str, args: &[&str]) -> Self {
        let said = folder.join(&format!("{}.out", program.file_name().expect("a name").display()));
        let out = fs::File::create(&said).expect("a file");
        let err = out.try_clone().expect("a file");
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.join("")).stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}; it comes with {package}", program.display()));
        Self { child, said }
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said that.
    pub(crate) async fn says(&self, text: &str) {
        until(text, || self.said().contains(text)).await;
    }

    /// How it ended by itself.
    pub(crate) async fn ended(&mut self) -> bool {
        super::in_time("the end of a peer", self.child.wait()).await.expect("a child").success()
    }
}

/// A program of the environment for telemetry that `cargo xtask test` makes.
pub(crate) fn python(program: &str) -> PathBuf {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/telemetry");
    // One of them is inside its package, whose folder has Python's version in its name.
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let packages = versions.map(|version| version.path().join("site-packages/rotel"));
    let mut found = packages.chain([environment.join("bin")]).map(|folder| folder.join(program));
    let found = found.find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is not installed; `cargo xtask test` installs it"))
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
