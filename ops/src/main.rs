//! Generates alert rules with their tests, a dashboard, the tables of metrics and settings in the docs, and `llms.txt`.
//! Metric names come from the library's catalogue, so that a renamed metric is renamed in every rule and panel.

mod configuration;
mod dashboard;
mod llms;
#[cfg(test)]
mod manifests;
mod names;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tutorial;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

const RULES: &str = "ops/prometheus/rules.yml";
const RULE_TESTS: &str = "ops/prometheus/rules.test.yml";
const DASHBOARD: &str = "ops/grafana/dashboard.json";
const DOCS: &str = "docs/metrics.md";
const CONFIGURATION: &str = "docs/configuration.md";
const INDEX: &str = "docs/README.md";
const LLMS: &str = "llms.txt";

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
fn generated() -> io::Result<[(&'static str, String); 6]> {
    Ok([
        (RULES, names::fill(include_str!("rules.yml"))),
        (RULE_TESTS, names::fill(include_str!("rules.test.yml"))),
        (DASHBOARD, dashboard::text()),
        (DOCS, filled(DOCS, table::insert)?),
        (CONFIGURATION, filled(CONFIGURATION, configuration::insert)?),
        (LLMS, filled(INDEX, llms::text)?),
    ])
}

/// What `make` makes of a page.
fn filled(page: &str, make: impl Fn(&str) -> Option<String>) -> io::Result<String> {
    let text = fs::read_to_string(at(page))?;
    make(&text).ok_or_else(|| io::Error::other(format!("{page} lacks a marker or heading of generated text")))
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
