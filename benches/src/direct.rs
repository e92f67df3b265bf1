//! The reference for the product: calls of a store in close succession, without a worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::core::{JobName, Store};

use crate::{
    jobs::{self, CALLERS, Template},
    report::{Result, per_second},
};

/// Pause between polls of an empty queue.
const PAUSE: Duration = Duration::from_millis(1);

/// Jobs inserted per second by this number of callers.
pub(crate) async fn inserts(store: &Arc<dyn Store>, template: &Template, jobs: u32, callers: u32) -> Result<f64> {
    let began = Instant::now();
    template.fill(store, jobs, callers).await?;
    Ok(per_second(jobs, began.elapsed()))
}

/// Jobs per second that this number of drivers claims and settles in batches from a backlog.
pub(crate) async fn drain(store: &Arc<dyn Store>, name: &JobName, jobs: u32, drivers: u32, batch: u32) -> Result<f64> {
    let began = Instant::now();
    work(store, name, jobs, drivers, batch).await?;
    Ok(per_second(jobs, began.elapsed()))
}

/// Jobs per second from insert to settlement, with concurrent inserts.
pub(crate) async fn insert_to_settled(
    store: &Arc<dyn Store>,
    template: &Template,
    jobs: u32,
    drivers: u32,
    batch: u32,
) -> Result<f64> {
    let began = Instant::now();
    let work = work(store, template.name(), jobs, drivers, batch);
    let (filled, worked) = tokio::join!(template.fill(store, jobs, CALLERS), work);
    filled.and(worked)?;
    Ok(per_second(jobs, began.elapsed()))
}

/// Microseconds from before the insert to after the claim of each job, one job after the other.
pub(crate) async fn insert_and_claim(
    store: &Arc<dyn Store>,
    template: &Template,
    jobs: u32,
    pace: Duration,
) -> Result<Vec<f64>> {
    let mut micros = Vec::new();
    for _ in 0..jobs {
        tokio::time::sleep(pace).await;
        let began = Instant::now();
        template.insert(&**store).await?;
        let attempts = jobs::claim(&**store, template.name(), 1).await?;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
        jobs::settle(&**store, &attempts).await?;
    }
    Ok(micros)
}

/// Claims and settles this number of jobs.
async fn work(store: &Arc<dyn Store>, name: &JobName, jobs: u32, drivers: u32, batch: u32) -> Result<()> {
    let left = Arc::new(AtomicU32::new(jobs));
    jobs::at_once(drivers, |_| {
        let (store, name, left) = (store.clone(), name.clone(), left.clone());
        async move {
            while let Some(mine) = take(&left, batch) {
                let attempts = jobs::claim(&*store, &name, mine).await?;
                jobs::settle(&*store, &attempts).await?;
                left.fetch_add(mine - attempts.len() as u32, Ordering::Relaxed);
                if attempts.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(())
        }
    })
    .await
}

/// Reserves the next batch out of the remaining jobs.
fn take(left: &AtomicU32, batch: u32) -> Option<u32> {
    let taken =
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left.saturating_sub(batch)));
    taken.ok().map(|before| before.min(batch))
}
