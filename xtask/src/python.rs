//! Installs the Python programs that tests need. Each set has its own virtual environment under `target/tools`, with the
//! versions that a file of this package lists.

use std::{fs, path::Path, process::Command};

use crate::command::{Failed, run};

/// Name of each environment and its pip requirements.
const ENVIRONMENTS: [(&str, &str); 5] = [
    // Schemas of Kubernetes, of Compose files and of KEDA.
    ("kubernetes", include_str!("../kubernetes.txt")),
    // Sends generated requests according to the demo's OpenAPI document.
    ("schemathesis", include_str!("../schemathesis.txt")),
    // An SMTP server.
    ("smtp", include_str!("../smtp.txt")),
    // A strict OpenMetrics parser and OTLP receivers.
    ("telemetry", include_str!("../telemetry.txt")),
    // The library that checks signatures of webhooks.
    ("webhooks", include_str!("../webhooks.txt")),
];

/// Installs each environment whose versions differ from its list.
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
    // Written last, so that an interrupted installation is repeated.
    fs::write(&installed, versions).map_err(|e| Failed::because(format_args!("{}: {e}", installed.display())))
}
