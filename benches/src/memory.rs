//! Resident memory of a queued job of 200 bytes.

use std::sync::Arc;

use async_endpoints::core::{MemoryStore, Store};
use tokio::runtime::Runtime;

use crate::{
    claim::template,
    jobs::CALLERS,
    process,
    report::{Result, row, title},
};

const JOBS: u32 = 1_000_000;

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    title(&format!("Memory: {JOBS} queued jobs with a payload of 200 bytes"));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let before = process::memory("self", "VmRSS")?;
    runtime.block_on(template()?.fill(&store, JOBS, CALLERS))?;
    let bytes = (process::memory("self", "VmRSS")? - before) as f64 / f64::from(JOBS);
    row("resident memory per job", &format!("{bytes:>6.0} bytes, {:.2} × its payload", bytes / 200.0));
    Ok(())
}
