//! A SQLite file, looked at by somebody else: who is writing to it, and what it holds once its last process has closed it.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use rusqlite::{Connection, OpenFlags};

/// Each names what does not fit.
const MISFITS: [(&str, &str); 9] = [
    ("damage", "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    (
        "counts that are not those of the jobs",
        "SELECT name FROM types AS t WHERE (queued, scheduled, in_progress, completed, failed, canceled) IS NOT
            (SELECT count(*) FILTER (WHERE status = 0), count(*) FILTER (WHERE status = 1),
                    count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3),
                    count(*) FILTER (WHERE status = 4), count(*) FILTER (WHERE status = 5)
             FROM jobs WHERE type = t.type)",
    ),
    ("jobs put aside", "SELECT reason FROM quarantine"),
    (
        "payloads that are missing, or too many",
        "SELECT hex(id) FROM jobs LEFT JOIN payloads USING (seq) WHERE (status = 3) = (payloads.seq IS NOT NULL)",
    ),
    (
        "results that are missing, or too many",
        "SELECT hex(id) FROM jobs LEFT JOIN results USING (seq) WHERE (status = 3) = (results.seq IS NULL)",
    ),
    ("payloads of no job", "SELECT 'seq ' || seq FROM payloads WHERE seq NOT IN (SELECT seq FROM jobs)"),
    ("results of no job", "SELECT 'seq ' || seq FROM results WHERE seq NOT IN (SELECT seq FROM jobs)"),
    (
        "attempts or lines of no job",
        "SELECT 'seq ' || seq FROM (SELECT seq FROM attempts UNION SELECT seq FROM logs)
         WHERE seq NOT IN (SELECT seq FROM jobs)",
    ),
    ("keys of no job", "SELECT key FROM keys WHERE id NOT IN (SELECT id FROM jobs UNION SELECT id FROM tombstones)"),
];

/// Where in the `-shm` beside a file the lock stands that whoever writes holds.
const WRITE_LOCK: u64 = 120;

/// Whether that process holds the lock that all who write need, by the kernel's own list; by none, where there is no such.
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

/// An exclusive lock of part of a file.
struct Lock {
    process: u32,
    inode: u64,
    from: u64,
    /// None: up to the end.
    until: Option<u64>,
}

impl Lock {
    fn covers(&self, at: u64) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// `1: POSIX  ADVISORY  WRITE 708 fe:00:13240 120 120`; none of those who wait, or only read.
fn lock(line: &str) -> Option<Lock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "WRITE", process, file, from, until] = words[..] else { return None };
    let inode = file.rsplit(':').next()?.parse().ok()?;
    Some(Lock { process: process.parse().ok()?, inode, from: from.parse().ok()?, until: until.parse().ok() })
}

/// Whatever does not fit, or that it cannot be looked at.
pub(crate) fn misfits(path: &Path) -> Vec<String> {
    match look(path) {
        Ok(found) => found,
        Err(error) => vec![format!("{}: {error}", path.display())],
    }
}

fn look(path: &Path) -> rusqlite::Result<Vec<String>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut found = Vec::new();
    for (what, sql) in MISFITS {
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
    fn who_writes_is_seen() {
        let folder = std::env::temp_dir().join(format!("chaos-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("jobs.db");
        let file = Connection::open(&path).unwrap();
        file.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE one (n); BEGIN; SELECT * FROM one;").unwrap();
        let (this, other) = (std::process::id(), std::process::id() + 1);
        assert!(!is_written_by(this, &path), "it reads");
        file.execute_batch("COMMIT; BEGIN IMMEDIATE;").unwrap();
        assert!(is_written_by(this, &path) && !is_written_by(other, &path));
        file.execute_batch("COMMIT").unwrap();
        assert!(!is_written_by(this, &path), "no more");
        drop(file);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn locks_are_read() {
        let held = lock("1: POSIX  ADVISORY  WRITE 708 fe:00:13240 120 EOF").unwrap();
        assert_eq!((held.process, held.inode, held.covers(119), held.covers(130)), (708, 13240, false, true));
        assert!(lock("1: -> POSIX  ADVISORY  WRITE 708 fe:00:13240 120 120").is_none(), "it waits");
        assert!(lock("1: POSIX  ADVISORY  READ 708 fe:00:13240 120 120").is_none(), "it reads");
    }

    #[test]
    fn each_misfit_is_found() {
        let path = std::env::temp_dir().join(format!("chaos-file-{}", std::process::id()));
        assert_eq!(misfits(&path).len(), 1, "there is none");
        let file = Connection::open(&path).unwrap();
        file.execute_batch(include_str!("../../crates/sqlite/src/sql/001.sql")).unwrap();
        file.execute_batch("INSERT INTO types (name) VALUES ('a')").unwrap();
        assert_eq!(misfits(&path), Vec::<String>::new());
        file.execute_batch(
            "UPDATE types SET queued = 1;
             INSERT INTO payloads VALUES (1, 1, x'00');
             INSERT INTO results VALUES (1, 1, x'00');
             INSERT INTO attempts VALUES (1, 1, 1, 1, 0, NULL);
             INSERT INTO keys VALUES (x'', 1, 'k', x'00');
             INSERT INTO quarantine VALUES (1, 1, 1, 'r');",
        )
        .unwrap();
        let found = misfits(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.len(), 6, "{found:?}");
    }
}
