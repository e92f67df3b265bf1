//! Disk space: returns unused pages of the file, cuts a long log, and reports what is left. Must not know jobs.

use std::time::Duration;

use async_endpoints_core::store::StoreHealth;
use rusqlite::Connection;

use crate::{failure::Failure, files::DatabaseFiles};

/// Unused pages that a file keeps for later jobs: returning and allocating them again would cost twice.
const SPARE_PAGES: i64 = 256;
/// The file also keeps one unused page of this many.
const SPARE_PART: i64 = 4;

/// Pages returned in one step, 1 MB, so that a step stays short.
const STEP_PAGES: i64 = 256;

/// Bytes of log that are kept for later commits.
pub(crate) const LOG_BYTES: u64 = 64 << 20;

/// How often the writer tries to cut a longer log.
pub(crate) const CUT_INTERVAL: Duration = Duration::from_secs(2);
/// Milliseconds that a try waits for readers. Writes wait meanwhile, so a try does not wait for a backup that reads for an
/// hour.
const CUT_WAIT: i32 = 100;

/// Returns pages from the end of the file if many are unused. Runs in the transaction of a step.
pub(crate) fn return_pages(conn: &Connection) -> Result<(), Failure> {
    let number = |pragma| -> Result<i64, Failure> { Ok(conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))?) };
    let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    if free <= SPARE_PAGES || free * SPARE_PART <= all {
        return Ok(());
    }
    let mut step = conn.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    // The pragma returns one page per row.
    let mut pages = step.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// Free bytes of the disk below which the store is degraded. Without free space, submissions are refused.
const FREE_BYTES: u64 = 512 << 20;
/// Bytes of log from which on the store is degraded: [`cut_log`] does not succeed.
const LONG_LOG_BYTES: u64 = 8 * LOG_BYTES;

/// Reports free disk space and the length of the log.
pub(crate) fn health(files: &DatabaseFiles) -> Result<StoreHealth, Failure> {
    let unreadable = |error: std::io::Error| Failure::Unavailable(format!("the disk cannot be read ({error})"));
    let log = std::fs::metadata(files.log_path()).map_err(unreadable)?.len();
    let free = free_bytes(files.log_path()).map_err(unreadable)?;
    Ok(condition(free, log))
}

fn condition(free: Option<u64>, log: u64) -> StoreHealth {
    let full = || format!("the disk has {} MiB left; submissions are refused when it is full", free.unwrap_or(0) >> 20);
    let long = || format!("the write-ahead log has {} MiB: a backup or another reader keeps it", log >> 20);
    StoreHealth::default()
        .with("disk_free_bytes", free)
        .with("wal_bytes", log)
        .degraded_if(free.is_some_and(|free| free < FREE_BYTES), full)
        .degraded_if(log >= LONG_LOG_BYTES, long)
}

/// Free bytes of the file system that has this file, as an unprivileged process may use them.
#[cfg(unix)]
fn free_bytes(file: &std::path::Path) -> std::io::Result<Option<u64>> {
    let stat = rustix::fs::statvfs(file)?;
    Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_: &std::path::Path) -> std::io::Result<Option<u64>> {
    Ok(None)
}

/// Copies the log into the file and truncates it. SQLite restarts the log only at a moment without readers, which never
/// comes while reads overlap. This function waits only for the reads that began before the copy: later reads do not need
/// the log. It replaces the connection's busy handler.
pub(crate) fn cut_log(conn: &mut Connection) -> Result<(), Failure> {
    conn.busy_handler(Some(wait_briefly))?;
    // The returned row says whether a reader prevented the cut. The next try may succeed.
    Ok(conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

fn wait_briefly(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    tries < CUT_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_degrade_the_store() {
        let degraded = |free, log| condition(free, log).degraded.len();
        assert_eq!(degraded(Some(FREE_BYTES), LONG_LOG_BYTES - 1), 0);
        assert_eq!(degraded(Some(FREE_BYTES - 1), 0), 1);
        assert_eq!(degraded(Some(FREE_BYTES), LONG_LOG_BYTES), 1);
        assert_eq!(degraded(None, 0), 0, "unknown on this system");
    }
}
