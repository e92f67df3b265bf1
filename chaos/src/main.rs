//! Command line of the chaos test. `cargo xtask chaos` calls this program.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use async_endpoints_chaos::{Plan, run};

/// The demo's default lease.
const LEASE: Duration = Duration::from_secs(8);

/// Maximum time from the kill of a process to the next attempt of its jobs, at p99.
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some(plan) = plan(&args) else {
        eprintln!(
            "usage: async-endpoints-chaos DEMO sqlite|redis|redis-failover|postgres|postgres-failover SECONDS [SEED]"
        );
        return ExitCode::from(2);
    };
    println!("seed {}, store {:?}, {:?}; files in {}", plan.seed, plan.store, plan.time, plan.folder.display());
    match run(plan).await {
        Ok(report) => {
            println!("{report}");
            let in_time = report.recovery(0.99).is_none_or(|took| took <= RECOVERY_LIMIT);
            if !in_time {
                println!("  recovery took longer than {RECOVERY_LIMIT:?} at p99");
            }
            if report.is_good() && in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the run failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: &[String]) -> Option<Plan> {
    let (demo, store, seconds) = (args.first()?, args.get(1)?.parse().ok()?, args.get(2)?.parse().ok()?);
    let seed = args.get(3).map_or_else(|| Some(fastrand::u64(..)), |seed| seed.parse().ok())?;
    let folder = env::temp_dir().join(format!("async-endpoints-chaos-{seed}-{}", std::process::id()));
    let demo = PathBuf::from(demo).canonicalize().ok()?;
    Some(Plan { demo, folder, store, lease: LEASE, time: Duration::from_secs_f64(seconds), seed })
}
