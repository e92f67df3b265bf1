//! Chaos test: injects faults into processes of the demo that share one store, into the store's server and into the
//! network between them, while clients submit jobs. The report then compares three records of every accepted job: the
//! service's final answer, the clients' responses, and the ledger that handlers write outside the store.
//!
//! | module | contents |
//! |---|---|
//! | `fault` | processes, faults and weights of each store's scenario, as data |
//! | `injection` | draws faults and carries them out |
//! | `fleet`, `process` | the processes of the demo |
//! | `server`, `servers`, `proxy` | the store's servers, and a proxy for each process |
//! | `load` | clients that submit jobs and repeat unanswered requests |
//! | `history`, `ledger` | faults and attempts with their times |
//! | `file` | write lock and consistency of the SQLite file |
//! | `report`, `recovery` | violated guarantees per job, and recovery times |
//! | `document` | reads job documents |
//! | `table` | prints the report |

#![allow(missing_docs, reason = "a tool of this repository, not a library")]

mod document;
mod fault;
mod file;
mod fleet;
mod history;
mod injection;
mod ledger;
mod load;
mod process;
pub mod proxy;
mod recovery;
mod report;
mod server;
mod servers;
mod table;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use fault::StoreKind;
pub use report::Report;

use fleet::Fleet;
use ledger::LedgerReader;
use load::Load;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The demo's program.
    pub demo: PathBuf,
    /// An empty folder for store, ledger and logs.
    pub folder: PathBuf,
    pub store: StoreKind,
    /// `AE_LEASE_SECONDS`. Long freezes and disconnections last 1.3 to 1.7 leases.
    pub lease: Duration,
    /// How long faults are injected.
    pub time: Duration,
    /// Seed for faults and requests. Equal seeds draw equal faults.
    pub seed: u64,
}

impl Plan {
    /// The SQLite file.
    fn file(&self) -> PathBuf {
        self.folder.join("jobs.db")
    }
}

/// Number of concurrent clients.
const CLIENTS: usize = 4;
/// How long jobs may take to end after the last fault: a lease, retries and a margin.
const LAST_JOBS: Duration = Duration::from_secs(60);

/// Runs the chaos test.
///
/// # Errors
/// If processes or servers cannot be started, controlled or queried. Violated guarantees are in the report.
pub async fn run(plan: Plan) -> io::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let fleet = Arc::new(Fleet::start(&plan).await?);
    let ledger = LedgerReader::start(fleet.ledger());
    let load = Load::start(&fleet, CLIENTS, rng.fork());
    injection::inject_faults(&fleet, Instant::now() + plan.time, &mut rng).await?;
    let clients = load.stop().await;
    let mut report = report::of(&fleet, clients, &ledger, LAST_JOBS).await?;
    fleet.stop_all().await?;
    report.bad_exits = fleet.history.lock().bad_exits.clone();
    if plan.store == StoreKind::Sqlite {
        report.inconsistent = file::inconsistencies(&plan.file());
    }
    Ok(report)
}
