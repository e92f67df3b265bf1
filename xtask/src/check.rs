//! What a change has to pass beside its tests. Runs all of it, and then says what failed.

use std::process::Command;

use crate::{
    command::{Failed, cargo, cargo_program, run, works},
    metadata::Metadata,
    msrv, rooms, sources,
};

/// Runs every check.
pub(crate) fn run_all() -> Result<(), Failed> {
    let results = [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("lints", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("documentation", documentation()),
        ("the house's own rules", house()),
        ("cargo-deny", deny()),
    ];
    let failed: Vec<&str> = results.iter().filter(|(_, result)| result.is_err()).map(|(name, _)| *name).collect();
    if failed.is_empty() {
        eprintln!("everything checked is fine");
        return Ok(());
    }
    Err(Failed::because(format_args!("failed: {}", failed.join(", "))))
}

fn documentation() -> Result<(), Failed> {
    let args = ["doc", "--workspace", "--no-deps", "--all-features"];
    run("cargo", Command::new(cargo_program()).args(args).env("RUSTDOCFLAGS", "-D warnings"))
}

/// What no tool knows of.
fn house() -> Result<(), Failed> {
    eprintln!("$ the promised Rust version, what each crate and room may know, how long files may be");
    let metadata = Metadata::read()?;
    let mut broken = msrv::broken(&metadata);
    broken.extend(rooms::broken(&metadata));
    broken.extend(sources::broken().map_err(Failed::because)?);
    for line in &broken {
        eprintln!("{line}");
    }
    if broken.is_empty() { Ok(()) } else { Err(Failed::because(format_args!("{} rules broken", broken.len()))) }
}

fn deny() -> Result<(), Failed> {
    if !works("cargo", &["deny", "--version"]) {
        eprintln!("cargo-deny is not installed: left out");
        return Ok(());
    }
    cargo(&["deny", "check", "licenses", "bans", "sources"])
}
