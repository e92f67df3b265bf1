//! Space given back: pages of the file that nothing uses, and a log that grew. Must not know jobs.

use std::time::Duration;

use rusqlite::Connection;

use crate::fail::Fail;

/// Unused pages that a file may keep, for what comes next: giving them back and taking them again costs twice.
const SPARE_PAGES: i64 = 256;
/// And their share of the file, as one part of so many.
const SPARE_PART: i64 = 4;

/// Pages given back in one step, 1 MB: a step stays short, and the janitor's next one goes on.
const STEP_PAGES: i64 = 256;

/// Bytes of log that are kept for the next commits.
pub(crate) const LOG_BYTES: u64 = 64 << 20;

/// How often to try to cut one that is longer, and how long to wait for those who read in it: a backup
/// may read for an hour, and nobody can write while this waits.
pub(crate) const CUTS: Duration = Duration::from_secs(2);
const CUT_TRIES: i32 = 100;

/// Gives pages back from the end of the file, if many are unused. In the transaction of a step.
pub(crate) fn give_back(conn: &Connection) -> Result<(), Fail> {
    let number = |pragma| -> Result<i64, Fail> { Ok(conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))?) };
    let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    if free <= SPARE_PAGES || free * SPARE_PART <= all {
        return Ok(());
    }
    let mut step = conn.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    // Each row is a page.
    let mut pages = step.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// Copies the log back and cuts it. Where threads read without a pause, SQLite never finds the moment to begin the
/// log anew by itself: this waits for it, since whoever begins to read when all is copied needs no log. Leaves another
/// way to wait for turns behind.
pub(crate) fn cut_log(conn: &mut Connection) -> Result<(), Fail> {
    conn.busy_handler(Some(briefly))?;
    // Its row says whether somebody was in the way. Then the next try may do it.
    Ok(conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

fn briefly(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    tries < CUT_TRIES
}
