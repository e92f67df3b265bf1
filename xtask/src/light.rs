//! Checks that a small service compiles no dependency that only an optional feature needs.

use std::process::Command;

use crate::command::{Failed, cargo_program};

/// A service with the default features.
const SERVICE: &str = "async-endpoints-quickstart";
/// Packages that the features `telemetry` and `dashboard` bring in.
const HEAVY: [&str; 7] =
    ["opentelemetry_sdk", "flate2", "hmac", "maud", "procfs", "tracing-opentelemetry", "tracing-subscriber"];

/// Such dependencies, one line each.
pub(crate) fn broken() -> Result<Vec<String>, Failed> {
    let args = ["tree", "--edges", "normal", "--package", SERVICE, "--prefix", "none"];
    let out = Command::new(cargo_program()).args(args).output();
    let out = out.map_err(|e| Failed::because(format_args!("cannot run cargo tree: {e}")))?;
    if !out.status.success() {
        return Err(Failed::because(format_args!("cargo tree: {}", String::from_utf8_lossy(&out.stderr))));
    }
    Ok(heavy(&String::from_utf8_lossy(&out.stdout)))
}

fn heavy(tree: &str) -> Vec<String> {
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let found = HEAVY.iter().filter(|heavy| names.contains(heavy));
    found.map(|heavy| format!("{SERVICE} compiles {heavy}: only an optional feature may bring it in")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_dependency_of_a_small_service_is_reported() {
        let tree =
            "async-endpoints-quickstart v0.1.0 (/a)\nopentelemetry v0.33.1\nprocfs v0.18.0\nprocfs-core v0.18.0\n";
        let expected = "async-endpoints-quickstart compiles procfs: only an optional feature may bring it in";
        assert_eq!(heavy(tree), [expected]);
        assert_eq!(heavy("opentelemetry v0.33.1"), [""; 0]);
    }
}
