//! Builds the demo in release mode and runs the chaos tool on it.

use crate::command::{Failed, cargo};

const DEMO: &str = "target/release/async-endpoints-demo";

const STORES: [&str; 5] = ["sqlite", "redis", "redis-failover", "postgres", "postgres-failover"];

/// Options: `--store` with one of [`STORES`], `--minutes 10`, `--seed 7`, each optional.
pub(crate) fn run(options: &[&str]) -> Result<(), Failed> {
    let (mut store, mut seconds, mut seed) = ("sqlite", 60.0, None);
    for option in options.chunks(2) {
        match option {
            ["--store", name] if STORES.contains(name) => store = name,
            ["--minutes", minutes] => {
                let minutes: f64 = minutes
                    .parse()
                    .map_err(|_| Failed::because(format_args!("invalid --minutes {minutes:?}: expected a number")))?;
                seconds = minutes * 60.0;
            }
            ["--seed", number] => seed = Some(*number),
            _ => {
                return Err(Failed::because(format_args!(
                    "invalid option {option:?}: expected --store, --minutes or --seed with a value"
                )));
            }
        }
    }
    cargo(&["build", "--release", "--package", "async-endpoints-demo"])?;
    let seconds = seconds.to_string();
    let chaos = ["run", "--quiet", "--release", "--package", "async-endpoints-chaos", "--", DEMO, store, &seconds];
    cargo(&[&chaos[..], seed.as_slice()].concat())
}
