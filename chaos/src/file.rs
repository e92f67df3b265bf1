//! Inspects the SQLite file from outside: which process holds the write lock, and whether its tables agree after a run.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use rusqlite::{Connection, OpenFlags};

/// Each query returns the inconsistencies of one kind.
const QUERIES: [(&str, &str); 9] = [
    ("damage", "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    (
        "wrong counts of jobs",
        "SELECT name FROM types AS t WHERE (queued, scheduled, in_progress, completed, failed, canceled) IS NOT
            (SELECT count(*) FILTER (WHERE status = 0), count(*) FILTER (WHERE status = 1),
                    count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3),
                    count(*) FILTER (WHERE status = 4), count(*) FILTER (WHERE status = 5)
             FROM jobs WHERE type_id = t.type_id)",
    ),
    ("quarantined jobs", "SELECT reason FROM quarantine"),
    (
        "missing or superfluous payloads",
        "SELECT hex(id) FROM jobs LEFT JOIN payloads USING (seq) WHERE (status = 3) = (payloads.seq IS NOT NULL)",
    ),
    (
        "missing or superfluous results",
        "SELECT hex(id) FROM jobs LEFT JOIN results USING (seq) WHERE (status = 3) = (results.seq IS NULL)",
    ),
    ("payloads without a job", "SELECT 'seq ' || seq FROM payloads WHERE seq NOT IN (SELECT seq FROM jobs)"),
    ("results without a job", "SELECT 'seq ' || seq FROM results WHERE seq NOT IN (SELECT seq FROM jobs)"),
    (
        "attempts or log lines without a job",
        "SELECT 'seq ' || seq FROM (SELECT seq FROM attempts UNION SELECT seq FROM logs)
         WHERE seq NOT IN (SELECT seq FROM jobs)",
    ),
    (
        "keys without a job",
        "SELECT key FROM keys WHERE id NOT IN (SELECT id FROM jobs UNION SELECT id FROM tombstones)",
    ),
];

/// Position of the write lock in the `-shm` file.
const WRITE_LOCK: u64 = 120;

/// Whether the process holds the write lock, according to `/proc/locks`. False if there is no such file.
pub(crate) fn is_written_by(process: u32, path: &Path) -> bool {
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    let (Ok(index), Ok(locks)) = (std::fs::metadata(index), std::fs::read_to_string("/proc/locks")) else {
        return false;
    };
    locks
        .lines()
        .filter_map(lock)
        .any(|lock| (lock.process, lock.inode) == (process, index.ino()) && lock.covers(WRITE_LOCK))
}

/// An exclusive lock on a range of a file.
struct Lock {
    process: u32,
    inode: u64,
    from: u64,
    /// `None`: to the end of the file.
    until: Option<u64>,
}

impl Lock {
    fn covers(&self, at: u64) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// Parses a held write lock: `1: POSIX  ADVISORY  WRITE 708 fe:00:13240 120 120`. `None` for read locks and for waiting
/// processes.
fn lock(line: &str) -> Option<Lock> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "WRITE", process, file, from, until] = fields[..] else { return None };
    let inode = file.rsplit(':').next()?.parse().ok()?;
    Some(Lock { process: process.parse().ok()?, inode, from: from.parse().ok()?, until: until.parse().ok() })
}

/// The inconsistencies of the file, or the error if it cannot be read.
pub(crate) fn inconsistencies(path: &Path) -> Vec<String> {
    match check(path) {
        Ok(found) => found,
        Err(error) => vec![format!("{}: {error}", path.display())],
    }
}

fn check(path: &Path) -> rusqlite::Result<Vec<String>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut found = Vec::new();
    for (what, sql) in QUERIES {
        let mut query = file.prepare(sql)?;
        let rows = query.query_map([], |row| row.get::<_, String>(0))?;
        for row in rows {
            found.push(format!("{what}: {}", row?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn writing_process_is_detected() {
        let folder = std::env::temp_dir().join(format!("chaos-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("jobs.db");
        let file = Connection::open(&path).unwrap();
        file.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE one (n); BEGIN; SELECT * FROM one;").unwrap();
        let (this, other) = (std::process::id(), std::process::id() + 1);
        assert!(!is_written_by(this, &path), "a reader");
        file.execute_batch("COMMIT; BEGIN IMMEDIATE;").unwrap();
        assert!(is_written_by(this, &path) && !is_written_by(other, &path));
        file.execute_batch("COMMIT").unwrap();
        assert!(!is_written_by(this, &path), "a writer that committed");
        drop(file);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn held_write_lock_is_parsed() {
        let held = lock("1: POSIX  ADVISORY  WRITE 708 fe:00:13240 120 EOF").unwrap();
        assert_eq!((held.process, held.inode, held.covers(119), held.covers(130)), (708, 13240, false, true));
        assert!(lock("1: -> POSIX  ADVISORY  WRITE 708 fe:00:13240 120 120").is_none(), "a waiting process");
        assert!(lock("1: POSIX  ADVISORY  READ 708 fe:00:13240 120 120").is_none(), "a reader");
    }

    #[test]
    fn each_inconsistency_is_found() {
        let path = std::env::temp_dir().join(format!("chaos-file-{}", std::process::id()));
        assert_eq!(inconsistencies(&path).len(), 1, "no file");
        let file = Connection::open(&path).unwrap();
        file.execute_batch(include_str!("../../crates/sqlite/src/sql/001.sql")).unwrap();
        file.execute_batch("INSERT INTO types (name) VALUES ('a')").unwrap();
        assert_eq!(inconsistencies(&path), Vec::<String>::new());
        file.execute_batch(
            "UPDATE types SET queued = 1;
             INSERT INTO payloads VALUES (1, 1, x'00');
             INSERT INTO results VALUES (1, 1, x'00');
             INSERT INTO attempts VALUES (1, 1, 1, 1, 0, NULL);
             INSERT INTO keys VALUES (x'', 1, 'k', x'00');
             INSERT INTO quarantine VALUES (1, 1, 1, 'r');",
        )
        .unwrap();
        let found = inconsistencies(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.len(), 6, "{found:?}");
    }
}
