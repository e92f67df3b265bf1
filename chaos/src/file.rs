//! What a SQLite file holds once its last process has closed it, looked at by somebody else: whether it fits together.

use std::path::Path;

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
