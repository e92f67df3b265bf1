//! Resident memory of a queued job of 200 bytes.

use async_endpoints::core::{JobName, MemoryStore};
use tokio::runtime::Runtime;

use crate::{
    claim::fill,
    report::{row, title},
};

const JOBS: u32 = 1_000_000;

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    title(&format!("Memory: {JOBS} queued jobs with a payload of 200 bytes"));
    let store = MemoryStore::new();
    let before = resident()?;
    runtime.block_on(fill(&store, &JobName::new("Queued")?, JOBS))?;
    let bytes = (resident()? - before) as f64 / f64::from(JOBS);
    row("resident memory per job", &format!("{bytes:>6.0} bytes, {:.2} × its payload", bytes / 200.0));
    Ok(())
}

/// Resident bytes of this process, as Linux counts them.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
