//! No-op jobs from submission to settlement, in process; reference: a channel and a task for each job.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, JobContext, JobType, MemoryStore, Options,
    core::{JobStatus, store::StatsQuery},
};
use tokio::{
    runtime::Runtime,
    sync::{Semaphore, mpsc},
};

use crate::report::{median, per_second, quantile, row, title};

const JOBS: u64 = 200_000;
const CALLERS: u64 = 64;
const SLOTS: u32 = 256;
const ROUNDS: usize = 9;
const NOOP: JobType<String, ()> = JobType::new("Noop");

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    title(&format!("Throughput: {JOBS} no-op jobs of 200 bytes, {CALLERS} callers, {SLOTS} slots, {ROUNDS} rounds"));
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    // Not counted: the process gets its memory.
    runtime.block_on(submit_to_settled())?;
    for _ in 0..ROUNDS {
        reference.push(runtime.block_on(channel_and_spawn()));
        ours.push(runtime.block_on(submit_to_settled())?);
    }
    row("channel + task per job, no store (reference)", &format!("{:>9.0} jobs/s", median(&reference)));
    row("submit to settled", &format!("{:>9.0} jobs/s", median(&ours)));
    row("  slowest and fastest round", &format!("{:>9.0} … {:.0}", quantile(&ours, 0.0), quantile(&ours, 1.0)));
    row("ratio to the reference", &format!("{:>9.2}", median(&ours) / median(&reference)));
    Ok(())
}

async fn submit_to_settled() -> Result<f64, Box<dyn std::error::Error>> {
    let options = Options { concurrency: SLOTS, max_queue_size: u64::MAX, ..Options::default() };
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .options(options)
        .handler(NOOP, async |_: JobContext<String>| Ok(()))
        .build()?;
    let working = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let endpoints = endpoints.clone();
            tokio::spawn(async move {
                let request = "x".repeat(198);
                for _ in 0..JOBS / CALLERS {
                    if endpoints.submit(NOOP, request.clone()).await.is_err() {
                        return false;
                    }
                }
                true
            })
        })
        .collect();
    for caller in callers {
        assert!(caller.await?, "a submission failed");
    }
    let jobs = JOBS / CALLERS * CALLERS;
    while completed(&endpoints).await? < jobs {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    endpoints.shutdown();
    working.await??;
    Ok(per_second(jobs, took))
}

async fn completed(endpoints: &AsyncEndpoints) -> Result<u64, Box<dyn std::error::Error>> {
    let stats = endpoints.store().stats(&StatsQuery::default()).await?;
    Ok(stats.types.iter().map(|kind| kind.count(JobStatus::Completed)).sum())
}

async fn channel_and_spawn() -> f64 {
    let (send, mut receive) = mpsc::channel::<String>(1024);
    let done = Arc::new(AtomicU64::new(0));
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
                let _ = send.send("x".repeat(198)).await;
            }
        });
    }
    while done.load(Ordering::Relaxed) < JOBS / CALLERS * CALLERS {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    per_second(JOBS / CALLERS * CALLERS, began.elapsed())
}
