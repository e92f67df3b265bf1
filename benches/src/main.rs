//! Measures stores, the worker and the HTTP face next to the limit of the same machine, all in one run.
//!
//! Every figure comes with its reference, taken in turns with it: machines differ and are noisy, so ratios count.
//! `cargo xtask bench` runs it; `docs/performance.md` shows and explains a run.
//!
//! | module | owns |
//! |---|---|
//! | `memory`, `throughput`, `pickup`, `claim` | the in-memory store and the worker; the last two for any store |
//! | `telemetry` | what measuring costs |
//! | `submission`, `load`, `followers`, `http` | the HTTP face |
//! | `sqlite`, `machine`, `space`; `redis` | a durable store and what it stands on |
//! | `rounds` | what both of them have in common: the product in turns with the store's own calls |
//! | `jobs`, `direct`, `product` | jobs; calls of a store alone; the product on a store |
//! | `served`, `process`, `idle` | servers in processes of their own |

mod claim;
mod direct;
mod folder;
mod followers;
mod http;
mod idle;
mod jobs;
mod load;
mod machine;
mod memory;
mod pickup;
mod process;
mod product;
mod redis;
mod report;
mod rounds;
mod served;
mod space;
mod sqlite;
mod submission;
mod telemetry;
mod throughput;

/// What a service with many threads should use, and what the demo uses: here it is worth a factor of two.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
#[derive(Copy, Clone)]
pub(crate) enum Effort {
    Whole,
    /// To try the bench out. Its figures say little.
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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Not for people: the bench starts itself again for its servers.
    if let [serve, what @ ..] = words.as_slice()
        && serve == "serve"
    {
        return served::run(&runtime, what);
    }
    let (quick, only): (Vec<_>, Vec<_>) = words.iter().partition(|word| *word == "quick");
    let effort = if quick.is_empty() { Effort::Whole } else { Effort::Quick };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| *only == name);
    // First, while the process is small: freed memory is used again.
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
        telemetry::run(&runtime)?;
    }
    if wanted("sqlite") {
        sqlite::run(&runtime, effort)?;
    }
    if wanted("redis") {
        redis::run(&runtime, effort)?;
    }
    Ok(())
}
