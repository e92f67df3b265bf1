//! Programs in Python that tests need, each set in an environment of its own under `target/tools`, in the versions that a
//! file of this package lists.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

/// What the tests use: an environment, and which versions it has.
const ENVIRONMENTS: [(&str, &str); 2] = [
    // Let loose on the demo's OpenAPI document.
    ("schemathesis", include_str!("../schemathesis.txt")),
    // A strict reader of OpenMetrics, and receivers of OTLP.
    ("telemetry", include_str!("../telemetry.txt")),
];

/// Makes sure that all of it is there in these versions.
pub(crate) fn ensure() -> Result<(), Failed> {
    ENVIRONMENTS.iter().try_for_each(|(name, versions)| ensure_one(name, versions))
}

fn ensure_one(name: &str, versions: &str) -> Result<(), Failed> {
    let environment = format!("target/tools/{name}");
    let installed = Path::new(&environment).join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == versions) {
        return Ok(());
    }
    run("python3", Command::new("python3").args(["-m", "venv", "--clear", &environment]))?;
    let (pip, list) = (format!("{environment}/bin/pip"), format!("xtask/{name}.txt"));
    let args = ["install", "--quiet", "--disable-pip-version-check", "--requirement", &list];
    run(&pip, Command::new(&pip).args(args))?;
    // Last: an installation that was cut off is begun anew.
    fs::write(&installed, versions).map_err(|e| Failed::because(format_args!("{}: {e}", installed.display())))
}
