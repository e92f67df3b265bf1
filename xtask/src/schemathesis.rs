//! Schemathesis, which the demo's tests let loose on its OpenAPI document: a Python program, in an environment of its own
//! under `target/tools`, in the versions that `schemathesis.txt` lists.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

const ENVIRONMENT: &str = "target/tools/schemathesis";
const VERSIONS: &str = include_str!("../schemathesis.txt");

/// Makes sure that it is there in these versions.
pub(crate) fn ensure() -> Result<(), Failed> {
    let installed = Path::new(ENVIRONMENT).join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|versions| versions == VERSIONS) {
        return Ok(());
    }
    run("python3", Command::new("python3").args(["-m", "venv", "--clear", ENVIRONMENT]))?;
    let pip = format!("{ENVIRONMENT}/bin/pip");
    let args = ["install", "--quiet", "--disable-pip-version-check", "--requirement", "xtask/schemathesis.txt"];
    run(&pip, Command::new(&pip).args(args))?;
    // Last: an installation that was cut off is begun anew.
    fs::write(&installed, VERSIONS).map_err(|e| Failed::because(format_args!("{}: {e}", installed.display())))
}
