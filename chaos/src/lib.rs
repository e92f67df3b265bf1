//! Real processes of the demo share one store and are killed, frozen and restarted under load. In the end every job that
//! was accepted is looked at, next to what the handlers wrote into a ledger of their own while they ran.
//!
//! | file | owns |
//! |---|---|
//! | `fleet` | the processes, and what is done to them |
//! | `load` | clients that submit, and repeat what was not answered |
//! | `report` | what became of every job: lost, changed, stuck, how long recovery took |

#![allow(missing_docs, reason = "a tool of this repository, not a library")]

mod fleet;
mod load;
pub mod proxy;
mod report;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use report::Report;

use fleet::Fleet;
use load::Load;

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The demo's program.
    pub demo: PathBuf,
    /// A folder of its own, for store, ledger and logs.
    pub folder: PathBuf,
    /// `AE_STORE`.
    pub store: String,
    /// For how long things happen to the processes.
    pub time: Duration,
    /// The same one lets the same things happen, as far as machines repeat themselves.
    pub seed: u64,
}

/// Processes at once.
const PROCESSES: usize = 3;
/// Clients at once.
const CLIENTS: usize = 4;
/// How long jobs may take to end once nothing happens any more: a lease, a frozen process, retries, and some more.
const LAST_ENDS: Duration = Duration::from_secs(60);

/// Runs it.
pub async fn run(plan: Plan) -> io::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let fleet = Arc::new(Fleet::start(&plan, PROCESSES).await?);
    let load = Load::start(&fleet, CLIENTS, rng.fork());
    let until = Instant::now() + plan.time;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(rng.u64(300..2500))).await;
        fleet.disturb(&mut rng).await?;
    }
    fleet.calm().await?;
    let accepted = load.stop().await;
    let report = report::of(&fleet, accepted, LAST_ENDS).await?;
    fleet.stop().await?;
    Ok(report)
}
