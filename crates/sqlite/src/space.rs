//! Disk space: returns unused pages of the file, and cuts a long log. Must not know jobs.

use std::time::Duration;

use rusqlite::Connection;

use crate::failure::Failure;

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
