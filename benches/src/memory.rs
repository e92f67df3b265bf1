//! Resident memory of a queued job of 200 bytes.

use async_endpoints::core::{JobName, MemoryStore};
use tokio::runtime::Runtime;

use crate::{
    claim::fill,
    process,
    report::{row, title},
};

const JOBS: u32 = 1_000_000;

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    title(&format!("Memory: {JOBS} queued jobs with a payload of 200 bytes"));
    let store = MemoryStore::new();
    let before = process::memory("self", "VmRSS")?;
    runtime.block_on(fill(&store, &JobName::new("Queued")?, JOBS))?;
    let bytes = (process::memory("self", "VmRSS")? - before) as f64 / f64::from(JOBS);
    row("resident memory per job", &format!("{bytes:>6.0} bytes, {:.2} × its payload", bytes / 200.0));
    Ok(())
}
