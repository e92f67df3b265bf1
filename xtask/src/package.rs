//! Checks the published crates as a user gets them: packed, unpacked, and built offline by a service with the dashboard.
//!
//! No packed crate may have a build script. Therefore the build needs neither Node.js nor any other program.

use std::{fmt::Write, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    command::{Failed, cargo, cargo_program, run},
    metadata::{Metadata, items, text},
};

/// Work folder of the check.
const FOLDER: &str = "target/packed";
const SERVICE: &str = include_str!("package/service.rs");

/// Packs the published crates and runs the service that is built from them.
pub(crate) fn check() -> Result<(), Failed> {
    let metadata = Metadata::read()?;
    let names: Vec<&str> = metadata.published().map(|package| text(&package["name"])).collect();
    without_build_script(&metadata)?;
    let packages = names.iter().flat_map(|name| ["--package", name]);
    let options = ["package", "--no-verify", "--allow-dirty", "--offline", "--quiet", "--target-dir", FOLDER];
    cargo(&options.into_iter().chain(packages).collect::<Vec<_>>())?;
    let version = metadata.published().next().map(|package| text(&package["version"])).unwrap_or_default();
    for name in &names {
        let archive = format!("{FOLDER}/package/{name}-{version}.crate");
        run("tar", Command::new("tar").args(["-xzf", &archive, "-C", FOLDER]))?;
    }
    write_service(&names, version).map_err(|e| Failed::because(format_args!("cannot write to {FOLDER}: {e}")))?;
    let manifest = format!("{FOLDER}/service/Cargo.toml");
    let run_service = ["run", "--offline", "--quiet", "--target-dir", "target", "--manifest-path", &manifest];
    let out = Command::new(cargo_program()).args(run_service).env("CARGO_INCREMENTAL", "0").output();
    let out = out.map_err(|e| Failed::because(format_args!("cannot run cargo: {e}")))?;
    let answer = String::from_utf8_lossy(&out.stdout);
    if answer.trim() == "HTTP/1.1 200 OK" {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&out.stderr);
    Err(Failed::because(format_args!("GET /dashboard of the packed crates: {answer:?}, expected 200 OK\n{errors}")))
}

fn without_build_script(metadata: &Metadata) -> Result<(), Failed> {
    let is_script = |target: &Value| items(&target["kind"]).iter().any(|kind| text(kind) == "custom-build");
    match metadata.published().find(|package| items(&package["targets"]).iter().any(is_script)) {
        None => Ok(()),
        Some(package) => Err(Failed::because(format_args!("{} has a build script", text(&package["name"])))),
    }
}

/// Writes the service's package. Its lock file is that of the workspace, so that every dependency is already downloaded.
fn write_service(names: &[&str], version: &str) -> std::io::Result<()> {
    let mut manifest = format!(
        "[package]\nname = \"packed-service\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         async-endpoints = {{ version = \"{version}\", features = [\"dashboard\"] }}\n\
         axum = {{ version = \"0.8\", default-features = false }}\n\
         tokio = {{ version = \"1\", features = [\"io-util\", \"macros\", \"net\", \"rt-multi-thread\"] }}\n\n[patch.crates-io]\n"
    );
    for name in names {
        let _ = writeln!(manifest, "{name} = {{ path = \"../{name}-{version}\" }}");
    }
    let folder = Path::new(FOLDER).join("service");
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src/main.rs"), SERVICE)?;
    fs::copy("Cargo.lock", folder.join("Cargo.lock"))?;
    Ok(())
}
