//! The workspace's tasks, for contributors and for the build.

mod chaos;
mod check;
mod command;
mod cycles;
mod failures;
mod files;
mod layers;
mod light;
mod links;
mod metadata;
mod msrv;
mod node;
mod package;
mod packages;
mod python;
mod rust;
mod sources;
mod wording;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use command::{Failed, cargo, cargo_program, run_reading};
use failures::Failures;

const MENU: &str = "\
cargo xtask <task>

  test         runs all tests, including those of the documentation; installs missing packages if the user has the right to
  check        formatting, lints, documentation, cargo-deny, and the next two
  check rules  minimum Rust version, layers, import cycles, links, file lengths, wording
  package      packs the published crates and runs a service that is built from them offline
  chaos        kills, stops, freezes and disconnects real processes under load
               options: --store sqlite|redis|redis-failover|postgres|postgres-failover --minutes 10 --seed 7
  generate     writes the alert rules, the dashboard, the tables of metrics and settings, and llms.txt
  bench        measures the figures of docs/performance.md; needs redis-server, redis-cli and PostgreSQL
               a name limits the run: throughput, pickup, claim, memory, submission, telemetry, half-load,
               sqlite, redis, dashboard, postgres; peers, which builds other queues first, runs only by name
               after dashboard: parts (lists, open-pages, seen, probes, bulk) and stores (memory, sqlite, redis)
";

fn main() -> ExitCode {
    if let Err(error) = env::set_current_dir(root()) {
        eprintln!("cannot enter {}: {error}", root().display());
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{MENU}");
            Ok(())
        }
        ["test"] => test(),
        ["check"] => check::run_all(),
        ["check", "rules"] => check::rules(),
        ["package"] => package::check(),
        ["generate"] => cargo(&["run", "--quiet", "--package", "async-endpoints-ops"]),
        ["chaos", options @ ..] => chaos::run(options),
        ["bench", only @ ..] => {
            cargo(&[&["run", "--quiet", "--release", "--package", "async-endpoints-benches", "--"], only].concat())
        }
        _ => {
            eprintln!("unknown task {:?}\n\n{MENU}", args.join(" "));
            return ExitCode::from(2);
        }
    };
    result.map_or_else(Failed::exit_code, |()| ExitCode::SUCCESS)
}

/// The workspace's folder.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Plain `cargo test` runs unit, integration and documentation tests, and builds the examples. README examples are
/// documentation tests of the crate that includes the README.
///
/// Incremental compilation would more than double the 6 GB that a fresh build takes on disk. The output of failed tests is
/// repeated at the end.
fn test() -> Result<(), Failed> {
    packages::ensure(packages::FOR_TESTS)?;
    python::ensure()?;
    node::ensure()?;
    let mut failures = Failures::default();
    let mut tests = |args: &[&str]| {
        let mut tests = Command::new(cargo_program());
        tests.arg("test").args(args).env("CARGO_INCREMENTAL", "0");
        run_reading("cargo", &mut tests, |line| failures.read(line))
    };
    let workspace = tests(&["--workspace", "--no-fail-fast"]);
    // They have lock files of their own, since the versions of their drivers must not restrict those of the crates.
    let others = ["examples/postgres-diesel/Cargo.toml", "examples/postgres-sqlx/Cargo.toml"];
    let others = others
        .iter()
        .try_for_each(|manifest| tests(&["--locked", "--target-dir", "target", "--manifest-path", manifest]));
    print!("{failures}");
    workspace.and(others)
}
