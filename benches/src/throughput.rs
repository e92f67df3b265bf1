//! No-op jobs from submission to settlement, in process; reference: a channel and a task for each job.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::core::{MemoryStore, Store};
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, mpsc},
};

use crate::{
    jobs::{CALLERS, request},
    product::{SLOTS, submit_to_settled},
    report::{Result, median, per_second, quantile, ratio, row, title},
};

const JOBS: u32 = 200_000;
const ROUNDS: usize = 9;

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    title(&format!("Throughput: {JOBS} no-op jobs of 200 bytes, {CALLERS} callers, {SLOTS} slots, {ROUNDS} rounds"));
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    let settled = || {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        runtime.block_on(submit_to_settled(&store, JOBS))
    };
    // Not counted: the process allocates its memory.
    settled()?;
    for _ in 0..ROUNDS {
        reference.push(runtime.block_on(channel_and_spawn()));
        ours.push(settled()?);
    }
    row("channel + task per job, no store (reference)", &format!("{:>9.0} jobs/s", median(&reference)));
    row("submit to settled", &format!("{:>9.0} jobs/s", median(&ours)));
    row("  slowest and fastest round", &format!("{:>9.0} … {:.0}", quantile(&ours, 0.0), quantile(&ours, 1.0)));
    ratio("ratio to the reference", &ours, &reference);
    Ok(())
}

async fn channel_and_spawn() -> f64 {
    let (send, mut receive) = mpsc::channel::<String>(1024);
    let done = Arc::new(AtomicU32::new(0));
    let counted = done.clone();
    let began = Instant::now();
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(SLOTS as usize));
        while let Some(request) = receive.recv().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let counted = counted.clone();
            tokio::spawn(async move {
                std::hint::black_box(request);
                counted.fetch_add(1, Ordering::Relaxed);
                drop(slot);
            });
        }
    });
    for _ in 0..CALLERS {
        let send = send.clone();
        tokio::spawn(async move {
            for _ in 0..JOBS / CALLERS {
                let _ = send.send(request()).await;
            }
        });
    }
    while done.load(Ordering::Relaxed) < JOBS / CALLERS * CALLERS {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    per_second(JOBS / CALLERS * CALLERS, began.elapsed())
}
