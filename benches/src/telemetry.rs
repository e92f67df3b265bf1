//! The cost of telemetry: processor time for each no-op job on the memory store, with telemetry on and off in turns.

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Telemetry,
    core::{MemoryStore, Store},
};
use tokio::runtime::Runtime;

use crate::{
    process,
    product::{DAY, Product},
    report::{Result, median, quantile, row, title},
};

const JOBS: u32 = 200_000;
const ROUNDS: usize = 15;

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    title(&format!("Telemetry: processor time of {JOBS} no-op jobs from submission to settlement, {ROUNDS} rounds"));
    let telemetry = Telemetry::builder().build()?;
    // Not counted: the process allocates its memory.
    runtime.block_on(round(None))?;
    let (mut off, mut on, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (without, with) = (runtime.block_on(round(None))?, runtime.block_on(round(Some(&telemetry)))?);
        off.push(without);
        on.push(with);
        added.push(with - without);
    }
    row("off", &format!("{:>6.2} µs per job", median(&off)));
    row("on", &format!("{:>6.2} µs per job", median(&on)));
    row("added, median of the pairs", &format!("{:>6.2} µs per job", median(&added)));
    row("  a quarter and three quarters", &format!("{:>6.2} … {:.2}", quantile(&added, 0.25), quantile(&added, 0.75)));
    Ok(())
}

/// Microseconds of processor time for each job.
async fn round(telemetry: Option<&Telemetry>) -> Result<f64> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut product = Product::with_telemetry(&store, DAY, telemetry)?;
    product.work();
    let before = cpu()?;
    product.submit(JOBS).await?;
    product.until_settled(JOBS).await?;
    let used = cpu()? - before;
    product.stop().await?;
    Ok(used.as_secs_f64() * 1e6 / f64::from(JOBS))
}

fn cpu() -> Result<Duration> {
    Ok(process::cpu("self")?)
}
