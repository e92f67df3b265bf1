//! Measures the in-memory store and the worker next to the limit of the same machine, all in one run.
//!
//! Every figure comes with its reference, taken in turns with it: machines differ and are noisy, so ratios count.
//! `cargo xtask bench` runs it; `docs/performance.md` shows and explains a run.

mod claim;
mod memory;
mod pickup;
mod report;
mod throughput;

/// What a service with many threads should use, and what the demo uses: here it is worth a factor of two.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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
    Ok(())
}
