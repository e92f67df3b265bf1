//! Query plans of all statements of the crate: no statement may scan or sort all jobs.
//!
//! The statements are the string literals in the sources that begin with a verb of SQL, so that a new statement is checked
//! even if no test runs it. They are planned twice: in a new file, and in a file whose operator ran `ANALYZE`.

use std::{fmt::Write as _, path::Path};

use async_endpoints_core::JobId;
use rusqlite::Connection;

use crate::{
    job::{self, COLUMNS},
    open::{self, Synchronous},
    types::COUNTS,
};

/// Tables that a statement may scan: one row, one row per type or worker, SQLite's own; and `quarantine`, which is counted
/// up to a limit.
const SMALL: [&str; 5] = ["meta", "types", "heartbeats", "sqlite_master", "quarantine"];

/// Tables that grow with the number of jobs.
const LARGE: [&str; 9] =
    ["jobs", "tombstones", "logs", "attempts", "payloads", "results", "keys", "minutes", "quarantine"];

/// The string literals of a source file, without its tests.
fn literals(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find('"') {
        let end = at + 1 + rest[at + 1..].find('"').expect("the end of a literal");
        found.push(rest[at + 1..end].replace("\\\n", ""));
        rest = &rest[end + 1..];
    }
    found
}

fn statements() -> Vec<String> {
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let sources = sources.map(|source| source.unwrap().path()).filter(|path| path.extension().is_some());
    // `job.rs` builds its statements from parts.
    let sources = sources.filter(|path| !path.ends_with("plans.rs") && !path.ends_with("job.rs"));
    let literals = sources.flat_map(|path| literals(&std::fs::read_to_string(path).unwrap()));
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];
    let statements = literals.filter(|literal| verbs.iter().any(|verb| literal.starts_with(verb)));
    let statements = statements
        .map(|sql| sql.replace("{COLUMNS}", COLUMNS).replace("{COUNTS}", COUNTS).replace("{columns}", "queued"));
    statements.chain([job::INSERT, job::UPDATE].map(str::to_owned)).collect()
}

/// The steps of SQLite's query plan.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|bad| panic!("{sql}: {bad}"));
    let lines = explain.raw_query().mapped(|row| row.get("detail")).collect::<Result<_, _>>();
    lines.unwrap()
}

/// Whether a step of a plan scans a table that grows, or sorts jobs.
fn is_bad(step: &str, sql: &str) -> bool {
    let scans = step.strip_prefix("SCAN ").is_some_and(|what| {
        let table = what.split(' ').next().unwrap_or_default();
        !SMALL.contains(&table) && !table.starts_with('(')
    });
    scans || step.starts_with("USE TEMP B-TREE") && sql.contains(" jobs ")
}

fn bad_plans(conn: &Connection) -> String {
    let mut bad = String::new();
    for sql in statements() {
        for step in plan(conn, &sql).iter().filter(|step| is_bad(step, &sql)) {
            write!(bad, "\n{step}\n    of {sql}").unwrap();
        }
    }
    bad
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> (Self, Connection) {
        let folder = std::env::temp_dir().join(JobId::random().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let conn = open::writer(&folder.join("jobs.db"), Synchronous::Off).unwrap();
        (Self(folder), conn)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn no_statement_scans_all_jobs() {
    let (_folder, conn) = Folder::new();
    assert_eq!(bad_plans(&conn), "");
    // After a burst, with many jobs of one type and status, an analysis finds that indexes select little.
    conn.execute_batch(
        "INSERT INTO types (name) VALUES ('a'), ('b');
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 4000)
         INSERT INTO jobs (seq, id, type_id, status, score, priority, max_retries, max_losses, retention, payload_bytes,
             fingerprint, repeatable, version, attempt, retries, losses, releases, order_number, created_at, updated_at,
             entered_at, runnable_since, lease_until, log_lines, log_bytes)
         SELECT n, randomblob(16), 1, n % 40 / 39 * 2, n, 0, 0, 0, 0, 0, x'', 0, 1, 0, 0, 0, 0, n, n, n, n, n, n, 0, 0
             FROM n;
         INSERT INTO tombstones SELECT id, NULL, x'', seq, seq, 1, NULL FROM jobs;
         INSERT INTO attempts SELECT seq, 1, 1, 1, 1, NULL, NULL FROM jobs;
         INSERT INTO logs SELECT seq, 1, 1, 1, '{}' FROM jobs;
         INSERT INTO minutes SELECT seq, 1, '{}' FROM jobs LIMIT 300;
         ANALYZE;",
    )
    .unwrap();
    conn.flush_prepared_statement_cache();
    assert_eq!(bad_plans(&conn), "");
}

/// Checks that the test above can fail, and that it sees every statement.
#[test]
fn scans_are_found_in_all_statements() {
    let (_folder, conn) = Folder::new();
    for sql in [
        "SELECT count(*) FROM jobs",
        "SELECT seq FROM jobs WHERE attempt > 3",
        "SELECT seq FROM jobs WHERE status = 0 AND type_id = 1 ORDER BY runnable_since",
        "DELETE FROM logs WHERE attempt = 1",
        "SELECT id FROM tombstones WHERE type_id = 1",
    ] {
        assert!(plan(&conn, sql).iter().any(|step| is_bad(step, sql)), "{sql}: {:?}", plan(&conn, sql));
    }
    let found = statements();
    for table in LARGE {
        let verbs = [" FROM ", " INTO ", "UPDATE "].map(|verb| format!("{verb}{table} "));
        assert!(found.iter().any(|sql| verbs.iter().any(|verb| format!("{sql} ").contains(verb))), "{table}");
    }
    assert!(found.len() > 70, "{}", found.len());
}
