//! Writes what operators need from the catalogue of metrics: rules for Prometheus with their tests, a dashboard for Grafana, and
//! the table of the docs. `cargo xtask generate` runs it; a test fails when a file is not what would be written.
//!
//! Names of metrics come from the catalogue alone: one that it does not have ends the generation.

mod dashboard;
mod names;
mod rules;
mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Every file that is generated, from the repository's root, as it should be.
fn files(root: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let docs = root.join("docs/metrics.md");
    let page = table::in_page(&fs::read_to_string(&docs)?)?;
    Ok(vec![
        (root.join("ops/prometheus/rules.yml"), rules::rules()),
        (root.join("ops/prometheus/rules.test.yml"), rules::tests()),
        (root.join("ops/grafana/dashboard.json"), dashboard::dashboard()),
        (docs, page),
    ])
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> io::Result<()> {
    for (path, text) in files(&root())? {
        fs::write(path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_file_is_as_it_would_be_written() {
        for (path, text) in files(&root()).unwrap() {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is not as generated: run `cargo xtask generate`", path.display());
        }
    }

    #[test]
    fn every_metric_that_is_named_exists() {
        for file in ["ops/prometheus/rules.yml", "ops/grafana/dashboard.json"] {
            let text = fs::read_to_string(root().join(file)).unwrap();
            let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let ours = ["async_job_", "async_store_", "async_worker_", "async_metrics_", "process_", "http_server_"];
            let named: Vec<&&str> =
                words.iter().filter(|word| ours.iter().any(|start| word.starts_with(start))).collect();
            assert!(named.len() > 10, "{file} names metrics");
            for name in named {
                assert!(names::is_known(name), "{file}: {name} is in no catalogue");
            }
        }
    }

    fn promtool(args: &[&str]) {
        let ran = Command::new("promtool").args(args).current_dir(root().join("ops/prometheus")).output();
        let ran = ran.unwrap_or_else(|error| panic!("promtool: {error}; its Debian package is prometheus"));
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{said}");
    }

    #[test]
    fn promtool_reads_the_rules_and_they_fire_when_they_should() {
        promtool(&["check", "rules", "rules.yml"]);
        promtool(&["test", "rules", "rules.test.yml"]);
    }
}
