//! Every statement of the crate, asked how SQLite would find its rows: nothing may look at all jobs, nor sort them.
//!
//! The statements are taken from the sources, where they stand as string literals: so none is written twice, and none
//! that is added later is left out, whether a test happens to run it or not. What is not found here does not begin with
//! a verb of SQL. They are asked twice: of a file as it is made, and of one whose owner ran `ANALYZE`.

use std::{fmt::Write as _, path::Path};

use async_endpoints_core::JobId;
use rusqlite::Connection;

use crate::{
    job::COLUMNS,
    ledger::COUNTS,
    open::{self, Synchronous},
};

/// Tables that may be looked at as a whole: one row, one for each type, one for each worker, SQLite's own; and what was
/// put aside, which is counted up to a bound.
const SMALL: [&str; 5] = ["meta", "types", "beats", "sqlite_master", "quarantine"];

/// Tables that grow with jobs.
const LARGE: [&str; 9] =
    ["jobs", "tombstones", "logs", "attempts", "payloads", "results", "keys", "slots", "quarantine"];

/// The literals of a source file, as the compiler reads them, up to its tests.
fn literals(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find('"') {
        let end = at + 1 + rest[at + 1..].find('"').expect("a literal ends");
        found.push(rest[at + 1..end].replace("\\\n", ""));
        rest = &rest[end + 1..];
    }
    found
}

fn statements() -> Vec<String> {
    let sources = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let sources = sources.map(|source| source.unwrap().path()).filter(|path| path.extension().is_some());
    let sources = sources.filter(|path| !path.ends_with("plans.rs"));
    let literals = sources.flat_map(|path| literals(&std::fs::read_to_string(path).unwrap()));
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];
    let statements = literals.filter(|literal| verbs.iter().any(|verb| literal.starts_with(verb)));
    statements.map(|sql| sql.replace("{COLUMNS}", COLUMNS).replace("{COUNTS}", COUNTS)).collect()
}

/// What SQLite would do, a line each.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|bad| panic!("{sql}: {bad}"));
    let lines = explain.raw_query().mapped(|row| row.get("detail")).collect::<Result<_, _>>();
    lines.unwrap()
}

/// Whether a step of a plan looks at all rows of a table that grows, or sorts rows of jobs.
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

struct Rig(std::path::PathBuf);

impl Rig {
    fn new() -> (Self, Connection) {
        let folder = std::env::temp_dir().join(JobId::random().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let conn = open::writer(&folder.join("jobs.db"), Synchronous::Off).unwrap();
        (Self(folder), conn)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn no_statement_looks_at_all_jobs() {
    let (_rig, conn) = Rig::new();
    assert_eq!(bad_plans(&conn), "");
    // Many of one type in one state, as a burst leaves them: an analysis then finds indexes that tell little apart.
    conn.execute_batch(
        "INSERT INTO types (name) VALUES ('a'), ('b');
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 4000)
         INSERT INTO jobs (seq, id, type, status, score, priority, max_retries, max_losses, retention, payload_bytes,
             fingerprint, repeatable, version, attempt, retries, losses, releases, ord, created_at, updated_at,
             entered_at, runnable_since, lease_until)
         SELECT n, randomblob(16), 1, n % 40 / 39 * 2, n, 0, 0, 0, 0, 0, x'', 0, 1, 0, 0, 0, 0, n, n, n, n, n, n FROM n;
         INSERT INTO tombstones SELECT id, NULL, x'', seq, seq, 1, NULL FROM jobs;
         INSERT INTO attempts SELECT seq, 1, 1, 1, 1, NULL FROM jobs;
         INSERT INTO logs SELECT seq, 1, 1, 1, '{}' FROM jobs;
         INSERT INTO slots SELECT seq, 1, '{}' FROM jobs LIMIT 300;
         ANALYZE;",
    )
    .unwrap();
    conn.flush_prepared_statement_cache();
    assert_eq!(bad_plans(&conn), "");
}

/// The test above would see what it looks for.
#[test]
fn bad_plans_are_seen_and_no_statement_is_left_out() {
    let (_rig, conn) = Rig::new();
    for sql in [
        "SELECT count(*) FROM jobs",
        "SELECT seq FROM jobs WHERE attempt > 3",
        "SELECT seq FROM jobs WHERE status = 0 AND type = 1 ORDER BY runnable_since",
        "DELETE FROM logs WHERE attempt = 1",
        "SELECT id FROM tombstones WHERE type = 1",
    ] {
        assert!(plan(&conn, sql).iter().any(|step| is_bad(step, sql)), "{sql}: {:?}", plan(&conn, sql));
    }
    let found = statements();
    for table in LARGE {
        let told = [" FROM ", " INTO ", "UPDATE "].map(|verb| format!("{verb}{table} "));
        assert!(found.iter().any(|sql| told.iter().any(|told| format!("{sql} ").contains(told))), "{table}");
    }
    assert!(found.len() > 70, "{}", found.len());
}
