//! Benches of the stores, the worker and the HTTP layer.
//!
//! Every figure has a reference that is measured in turns with it. Machines differ and are noisy, so ratios count.
//! `cargo xtask bench` runs the benches; `docs/performance.md` shows and explains a run.
//!
//! | module | contents |
//! |---|---|
//! | `memory`, `throughput`, `pickup`, `claim` | the in-memory store and the worker; `pickup` and `claim` for any store |
//! | `telemetry`, `half_load` | the cost of telemetry: processor time, and times of jobs under a steady load |
//! | `submission`, `load`, `followers`, `http` | the HTTP layer |
//! | `dashboard`, `lists`, `open_pages`, `seen`, `probes`, `bulk` | the operator routes and the dashboard |
//! | `backlog`, `operated` | stores with many jobs, and a service with operator routes on them |
//! | `sqlite`, `sqlite_file`, `machine`, `space`; `redis`; `postgres`, `peers` | the durable stores, their files and servers |
//! | `rounds` | the product in turns with calls of a durable store |
//! | `jobs`, `direct`, `product` | jobs, calls of a store alone, the product on a store |
//! | `served`, `orders`, `process`, `idle` | servers as separate processes |

mod backlog;
mod bulk;
mod claim;
mod dashboard;
mod direct;
mod folder;
mod followers;
mod half_load;
mod http;
mod idle;
mod jobs;
mod lists;
mod load;
mod machine;
mod memory;
mod open_pages;
mod operated;
mod orders;
mod peers;
mod pickup;
mod postgres;
mod probes;
mod process;
mod product;
mod redis;
mod report;
mod rounds;
mod seen;
mod served;
mod space;
mod sqlite;
mod sqlite_file;
mod submission;
mod telemetry;
mod throughput;

/// The allocator that the demo uses. It doubles the rates of the in-memory store.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Length of the measurements.
#[derive(Copy, Clone)]
pub(crate) enum Effort {
    Whole,
    /// For trying out the bench. The figures are not meaningful.
    Quick,
}

impl Effort {
    pub(crate) fn of<T>(self, whole: T, quick: T) -> T {
        match self {
            Self::Whole => whole,
            Self::Quick => quick,
        }
    }
}

fn main() -> report::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Internal: the bench starts itself again for its servers.
    if let [serve, what @ ..] = args.as_slice()
        && serve == "serve"
    {
        return served::run(&runtime, what);
    }
    let (quick, only): (Vec<_>, Vec<_>) = args.iter().partition(|arg| *arg == "quick");
    let effort = if quick.is_empty() { Effort::Whole } else { Effort::Quick };
    if let [name, only @ ..] = only.as_slice()
        && *name == "dashboard"
    {
        return dashboard::run(&runtime, effort, &only.iter().map(|word| word.as_str()).collect::<Vec<_>>());
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| *only == name);
    // First, because later benches reuse memory that earlier ones freed.
    if wanted("memory") {
        memory::run(&runtime)?;
    }
    if wanted("throughput") {
        throughput::run(&runtime)?;
    }
    if wanted("pickup") {
        pickup::run(&runtime)?;
    }
    if wanted("claim") {
        claim::run(&runtime)?;
    }
    if wanted("submission") {
        submission::run(&runtime)?;
    }
    if wanted("telemetry") {
        telemetry::run(effort)?;
    }
    if wanted("half-load") {
        half_load::run(&runtime, effort)?;
    }
    if wanted("sqlite") {
        sqlite::run(&runtime, effort)?;
    }
    if wanted("redis") {
        redis::run(&runtime, effort)?;
    }
    if wanted("postgres") {
        postgres::run(&runtime, effort)?;
    }
    // Only by name: its build takes minutes.
    if only.iter().any(|only| *only == "peers") {
        peers::run(&runtime, effort)?;
    }
    if wanted("dashboard") {
        dashboard::run(&runtime, effort, &[])?;
    }
    Ok(())
}
