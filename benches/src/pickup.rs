//! Time from a submission into an empty queue to the start of its handler. References: a channel and a task; an insert and
//! a claim of the store.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, JobContext, JobType,
    core::{MemoryStore, Store},
};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    direct,
    jobs::Template,
    report::{Result, ratio, times, title},
};

const PACE: Duration = Duration::from_millis(5);
const TURNS: u32 = 3;
const TIMED: JobType<u32, ()> = JobType::new("Timed");

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    runtime.block_on(on("in memory", &(Arc::new(MemoryStore::new()) as Arc<dyn Store>), 1800))
}

/// Prints pickup times on a store.
pub(crate) async fn on(name: &str, store: &Arc<dyn Store>, jobs: u32) -> Result<()> {
    title(&format!("Pickup {name}: one job every {PACE:?} into an empty queue, {jobs} jobs each, in turns"));
    let (mut ours, mut calls, mut reference) = (Vec::new(), Vec::new(), Vec::new());
    let template = Template::plain("Direct")?;
    for _ in 0..TURNS {
        reference.extend(channel_and_spawn(jobs / TURNS).await);
        calls.extend(direct::insert_and_claim(store, &template, jobs / TURNS, PACE).await?);
        ours.extend(submit_to_start(store, jobs / TURNS).await?);
    }
    times("channel + task (reference)", &reference);
    times("the store's insert and claim alone (reference)", &calls);
    times("submit to handler start", &ours);
    ratio("ratio of the medians, to channel + task", &ours, &reference);
    ratio("ratio of the medians, to insert and claim", &ours, &calls);
    Ok(())
}

type Times = Arc<Mutex<Vec<f64>>>;

fn record(times: &Times, since: Instant) {
    times.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed().as_secs_f64() * 1e6);
}

fn take(times: &Times) -> Vec<f64> {
    std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Microseconds from before a submission to the start of its handler, one job after the other.
pub(crate) async fn submit_to_start(store: &Arc<dyn Store>, jobs: u32) -> Result<Vec<f64>> {
    let times = Times::default();
    let sent: Arc<Mutex<Instant>> = Arc::new(Mutex::new(Instant::now()));
    let (started, sent_at) = (times.clone(), sent.clone());
    let endpoints = AsyncEndpoints::builder(store.clone())
        .handler(TIMED, move |_: JobContext<u32>| {
            record(&started, *sent_at.lock().unwrap_or_else(PoisonError::into_inner));
            async { Ok(()) }
        })
        .build()?;
    let working = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for n in 0..jobs {
        tokio::time::sleep(PACE).await;
        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        endpoints.submit(TIMED, n).await?;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    endpoints.shutdown();
    working.await??;
    Ok(take(&times))
}

async fn channel_and_spawn(jobs: u32) -> Vec<f64> {
    let (send, mut receive) = mpsc::channel::<Instant>(16);
    let times = Times::default();
    let started = times.clone();
    tokio::spawn(async move {
        while let Some(at) = receive.recv().await {
            let started = started.clone();
            tokio::spawn(async move { record(&started, at) });
        }
    });
    for _ in 0..jobs {
        tokio::time::sleep(PACE).await;
        let _ = send.send(Instant::now()).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    take(&times)
}
