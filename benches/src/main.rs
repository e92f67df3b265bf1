//! Measures the in-memory store, the worker and the HTTP face next to the limit of the same machine, all in one run.
//!
//! Every figure comes with its reference, taken in turns with it: machines differ and are noisy, so ratios count.
//! `cargo xtask bench` runs it; `docs/performance.md` shows and explains a run.

mod claim;
mod followers;
mod http;
mod load;
mod memory;
mod pickup;
mod process;
mod report;
mod served;
mod submission;
mod throughput;

/// What a service with many threads should use, and what the demo uses: here it is worth a factor of two.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let only = words.next();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Not for people: the bench starts itself again for its servers.
    if only.as_deref() == Some("serve") {
        return served::run(&runtime, &words.next().unwrap_or_default());
    }
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
    Ok(())
}
