//! From a submission into an empty queue to the start of its handler; reference: a channel and a task.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints::{AsyncEndpoints, JobContext, JobType, MemoryStore};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::report::{quantile, row, title};

const JOBS: u32 = 600;
const PACE: Duration = Duration::from_millis(5);
const TIMED: JobType<u32, ()> = JobType::new("Timed");

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    title(&format!("Pickup: one job every {PACE:?} into an empty queue, {JOBS} jobs each, in turns"));
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        reference.extend(runtime.block_on(channel_and_spawn()));
        ours.extend(runtime.block_on(submit_to_start())?);
    }
    for (what, values) in [("channel + task (reference)", &reference), ("submit to handler start", &ours)] {
        let text = format!("p50 {:>6.0} µs   p99 {:>6.0} µs", quantile(values, 0.5), quantile(values, 0.99));
        row(what, &text);
    }
    row("ratio of the medians", &format!("{:>6.1}", quantile(&ours, 0.5) / quantile(&reference, 0.5)));
    Ok(())
}

type Times = Arc<Mutex<Vec<f64>>>;

fn note(times: &Times, since: Instant) {
    times.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed().as_secs_f64() * 1e6);
}

fn taken(times: &Times) -> Vec<f64> {
    std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn submit_to_start() -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let times = Times::default();
    let sent: Arc<Mutex<Instant>> = Arc::new(Mutex::new(Instant::now()));
    let (started, sent_at) = (times.clone(), sent.clone());
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .handler(TIMED, move |_: JobContext<u32>| {
            note(&started, *sent_at.lock().unwrap_or_else(PoisonError::into_inner));
            async { Ok(()) }
        })
        .build()?;
    let working = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for n in 0..JOBS {
        tokio::time::sleep(PACE).await;
        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        endpoints.submit(TIMED, n).await?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    endpoints.shutdown();
    working.await??;
    Ok(taken(&times))
}

async fn channel_and_spawn() -> Vec<f64> {
    let (send, mut receive) = mpsc::channel::<Instant>(16);
    let times = Times::default();
    let started = times.clone();
    tokio::spawn(async move {
        while let Some(at) = receive.recv().await {
            let started = started.clone();
            tokio::spawn(async move { note(&started, at) });
        }
    });
    for _ in 0..JOBS {
        tokio::time::sleep(PACE).await;
        let _ = send.send(Instant::now()).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    taken(&times)
}
