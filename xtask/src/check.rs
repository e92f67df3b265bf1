//! The checks that a change has to pass besides the tests. All of them run, then the failed ones are listed.

use std::{io, process::Command};

use crate::{
    command::{Failed, cargo, cargo_program, run, works},
    cycles, layers, light, links,
    metadata::Metadata,
    msrv, package, sources, wording,
};

/// Runs every check.
pub(crate) fn run_all() -> Result<(), Failed> {
    let results = [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("lints", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("documentation", documentation()),
        ("rules", rules()),
        ("cargo-deny", deny()),
        ("packed crates", package::check()),
    ];
    let failed: Vec<&str> = results.iter().filter(|(_, result)| result.is_err()).map(|(name, _)| *name).collect();
    if failed.is_empty() {
        eprintln!("all checks passed");
        return Ok(());
    }
    Err(Failed::because(format_args!("failed: {}", failed.join(", "))))
}

fn documentation() -> Result<(), Failed> {
    let args = ["doc", "--workspace", "--no-deps", "--all-features"];
    run("cargo", Command::new(cargo_program()).args(args).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Checks the rules of this repository: those that neither cargo nor clippy knows.
pub(crate) fn rules() -> Result<(), Failed> {
    eprintln!("$ minimum Rust version, layers, import cycles, links, file lengths, wording");
    let metadata = Metadata::read()?;
    let files = broken_in_files().map_err(Failed::because)?;
    let broken = [msrv::broken(&metadata), layers::broken(&metadata), light::broken()?, files].concat();
    for line in &broken {
        eprintln!("{line}");
    }
    if broken.is_empty() { Ok(()) } else { Err(Failed::because(format_args!("{} violations", broken.len()))) }
}

/// Violations in the files of the repository, one line each.
fn broken_in_files() -> io::Result<Vec<String>> {
    Ok([cycles::broken()?, links::broken()?, sources::broken()?, wording::broken()?].concat())
}

fn deny() -> Result<(), Failed> {
    if !works("cargo", &["deny", "--version"]) {
        eprintln!("cargo-deny is not installed: left out");
        return Ok(());
    }
    cargo(&["deny", "check", "licenses", "bans", "sources"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_has_no_violation() {
        std::env::set_current_dir(crate::root()).unwrap();
        let broken = broken_in_files().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
