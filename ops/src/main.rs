//! Generates alert rules with their tests, a dashboard, and the table of metrics in the docs.
//! Metric names come from the library's catalogue, so that a renamed metric is renamed in every rule and panel.

mod dashboard;
mod names;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

const RULES: &str = "ops/prometheus/rules.yml";
const RULE_TESTS: &str = "ops/prometheus/rules.test.yml";
const DASHBOARD: &str = "ops/grafana/dashboard.json";
const DOCS: &str = "docs/metrics.md";

fn main() -> ExitCode {
    let written = generated().and_then(|files| files.iter().try_for_each(|(path, text)| write(path, text)));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Path, relative to the workspace, and text of every generated file.
fn generated() -> io::Result<[(&'static str, String); 4]> {
    let docs = fs::read_to_string(at(DOCS))?;
    let docs = table::insert(&docs)
        .ok_or_else(|| io::Error::other(format!("{DOCS} lacks the markers of the generated table")))?;
    Ok([
        (RULES, names::fill(include_str!("rules.yml"))),
        (RULE_TESTS, names::fill(include_str!("rules.test.yml"))),
        (DASHBOARD, dashboard::text()),
        (DOCS, docs),
    ])
}

fn write(path: &str, text: &str) -> io::Result<()> {
    let path = at(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// A path relative to the workspace.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
