//! How large a file grows with a burst of jobs, and whether it comes back when they are pruned.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{
    core::{JobStatus, Store},
    sqlite::Synchronous,
};

use crate::{
    Effort, jobs,
    product::Product,
    report::{Result, mib, row, title},
    sqlite::{beside, open},
};

const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row at which nothing changed: nothing more will. Longer than what is left of pruned jobs is kept.
const STILL: u32 = 50;
/// How long pruning and giving back may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(path: &Path, effort: Effort) -> Result<()> {
    let burst = effort.of(100_000, 10_000);
    let retention = effort.of(Duration::from_secs(15), Duration::from_secs(3));
    title(&format!("Space: a burst of {burst} jobs, kept for {retention:?} and then pruned"));
    let store = open(path, Synchronous::Full).await?;
    show("before the burst", path);
    let mut product = Product::on(&store, retention)?;
    product.work();
    product.submit(burst).await?;
    product.until_ran(burst).await;
    show("after it, all jobs ended", path);
    let began = Instant::now();
    let gone = until_pruned(&store).await?;
    show(&format!("{gone:.0?} later, all jobs pruned"), path);
    until_still(path).await;
    show(&format!("{:.0?} later, nothing changes any more", began.elapsed()), path);
    product.stop().await
}

async fn until_pruned(store: &Arc<dyn Store>) -> Result<Duration> {
    let began = Instant::now();
    while jobs::count(&**store, JobStatus::Completed).await? > 0 {
        if began.elapsed() > PATIENCE {
            return Err("ended jobs are not pruned".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(began.elapsed())
}

async fn until_still(path: &Path) {
    let (began, mut last, mut same) = (Instant::now(), sizes(path), 0);
    while same < STILL && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let now = sizes(path);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
}

fn sizes(path: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    (size(path), size(&beside(path, "-wal")))
}

fn show(what: &str, path: &Path) {
    let (file, log) = sizes(path);
    row(what, &format!("{:>7.1} MiB file   {:>7.1} MiB log", mib(file), mib(log)));
}
