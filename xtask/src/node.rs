//! Installs the Node.js packages that tests need into `target/tools/typescript`, as the lock file of the example lists them.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

const FOLDER: &str = "target/tools/typescript";
const PACKAGE: &str = include_str!("../../examples/demo/typescript/package.json");
const LOCK: &str = include_str!("../../examples/demo/typescript/package-lock.json");

/// Installs the packages if the installed versions differ from the lock file.
pub(crate) fn ensure() -> Result<(), Failed> {
    let folder = Path::new(FOLDER);
    let installed = folder.join("installed.json");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == LOCK) {
        return Ok(());
    }
    let failed = |error| Failed::because(format_args!("{FOLDER}: {error}"));
    fs::create_dir_all(folder).map_err(failed)?;
    fs::write(folder.join("package.json"), PACKAGE).map_err(failed)?;
    fs::write(folder.join("package-lock.json"), LOCK).map_err(failed)?;
    run("npm", Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(folder))?;
    // Written last, so that an interrupted installation is repeated.
    fs::write(installed, LOCK).map_err(failed)
}
