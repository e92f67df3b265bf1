//! `async-endpoints-chaos DEMO sqlite|redis|redis-failover SECONDS [SEED]`: see the library. `cargo xtask chaos` calls it.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use async_endpoints_chaos::{Plan, run};

/// The default.
const LEASE: Duration = Duration::from_secs(8);

/// What is promised by default: from the kill of a process to the next attempt of what it ran, at p99.
const RECOVERED: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some(plan) = plan(&words) else {
        eprintln!("async-endpoints-chaos DEMO sqlite|redis|redis-failover SECONDS [SEED]");
        return ExitCode::from(2);
    };
    println!("seed {}, store {:?}, {:?}; files in {}", plan.seed, plan.store, plan.time, plan.folder.display());
    match run(plan).await {
        Ok(report) => {
            println!("{report}");
            let in_time = report.recovery(0.99).is_none_or(|took| took <= RECOVERED);
            if !in_time {
                println!("  recovered later than promised: {RECOVERED:?} at p99");
            }
            if report.is_good() && in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the run could not be ended: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(words: &[String]) -> Option<Plan> {
    let (demo, store, seconds) = (words.first()?, words.get(1)?.parse().ok()?, words.get(2)?.parse().ok()?);
    let seed = words.get(3).map_or_else(|| Some(fastrand::u64(..)), |seed| seed.parse().ok())?;
    let folder = env::temp_dir().join(format!("async-endpoints-chaos-{seed}-{}", std::process::id()));
    let demo = PathBuf::from(demo).canonicalize().ok()?;
    Some(Plan { demo, folder, store, lease: LEASE, time: Duration::from_secs_f64(seconds), seed })
}
