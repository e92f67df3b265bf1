//! Real processes of the demo share one store, and under load things happen to them, to their store, and to the ways
//! between. In the end every job that was accepted is looked at, next to what clients saw and to what the handlers wrote
//! into a ledger of their own while they ran.
//!
//! | file | owns |
//! |---|---|
//! | `fault` | what may happen, as data: for each store its processes, its faults and their weights |
//! | `stage` | lets it happen |
//! | `fleet`, `process` | the processes in their places |
//! | `backing`, `proxy` | the servers, and each process's own way to them |
//! | `load` | clients that submit, and repeat what was not answered |
//! | `diary`, `ledger` | what was done and when; what handlers did and when |
//! | `file` | who is writing to a SQLite file, and whether it fits together in the end |
//! | `report`, `recovery` | what became of every job: lost, changed, stuck; how long it took to come back |
//! | `table` | how that is printed |

#![allow(missing_docs, reason = "a tool of this repository, not a library")]

mod backing;
mod diary;
mod fault;
mod file;
mod fleet;
mod ledger;
mod load;
mod process;
pub mod proxy;
mod recovery;
mod report;
mod stage;
mod table;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use fault::Store;
pub use report::Report;

use fleet::Fleet;
use ledger::Watch;
use load::Load;

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The demo's program.
    pub demo: PathBuf,
    /// A folder of its own, for store, ledger and logs.
    pub folder: PathBuf,
    /// Where jobs are kept, and with it what can happen.
    pub store: Store,
    /// `AE_LEASE_SECONDS`; what is to last longer than a lease lasts as much longer.
    pub lease: Duration,
    /// For how long things happen.
    pub time: Duration,
    /// The same one lets the same things happen, as far as machines repeat themselves.
    pub seed: u64,
}

impl Plan {
    /// Of the processes that keep their jobs in one.
    fn file(&self) -> PathBuf {
        self.folder.join("jobs.db")
    }
}

/// Clients at once.
const CLIENTS: usize = 4;
/// How long jobs may take to end once nothing happens any more: a lease, retries, and some more.
const LAST_ENDS: Duration = Duration::from_secs(60);

/// Runs it.
pub async fn run(plan: Plan) -> io::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let fleet = Arc::new(Fleet::start(&plan).await?);
    let watch = Watch::start(fleet.ledger());
    let load = Load::start(&fleet, CLIENTS, rng.fork());
    stage::play(&fleet, Instant::now() + plan.time, &mut rng).await?;
    let heard = load.stop().await;
    let mut report = report::of(&fleet, heard, &watch, LAST_ENDS).await?;
    fleet.end().await?;
    report.bad_exits = fleet.diary.write().bad_exits.clone();
    if plan.store == Store::Sqlite {
        report.unfit = file::misfits(&plan.file());
    }
    Ok(report)
}
