//! The size of the SQLite file during a burst of jobs and after they are pruned.

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
    sqlite_file::{open, with_ending},
};

/// Interval for polling sizes.
const POLL: Duration = Duration::from_millis(500);
/// Number of polls without a change after which the size is final: longer than tombstones are kept.
const STABLE_POLLS: u32 = 50;
/// Maximum time for pruning, and for the size to become stable.
const TIMEOUT: Duration = Duration::from_secs(120);

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
    until_stable(path).await;
    show(&format!("{:.0?} later, nothing changes any more", began.elapsed()), path);
    product.stop().await
}

async fn until_pruned(store: &Arc<dyn Store>) -> Result<Duration> {
    let began = Instant::now();
    while jobs::count(&**store, JobStatus::Completed).await? > 0 {
        if began.elapsed() > TIMEOUT {
            return Err("ended jobs are not pruned in time".into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(began.elapsed())
}

async fn until_stable(path: &Path) {
    let (began, mut last, mut same) = (Instant::now(), sizes(path), 0);
    while same < STABLE_POLLS && began.elapsed() < TIMEOUT {
        tokio::time::sleep(POLL).await;
        let now = sizes(path);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
}

fn sizes(path: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    (size(path), size(&with_ending(path, "-wal")))
}

fn show(what: &str, path: &Path) {
    let (file, log) = sizes(path);
    row(what, &format!("{:>7.1} MiB file   {:>7.1} MiB log", mib(file), mib(log)));
}
