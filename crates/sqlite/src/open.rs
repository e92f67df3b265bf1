//! Opening a file: settings of a connection, and the schema brought up to date.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_endpoints_core::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{fail::Fail, space::LOG_BYTES};

/// How to get from each version of the schema to the next. Released steps never change.
const STEPS: [&str; 1] = [include_str!("sql/001.sql")];

/// Stands in the file's header, so that nobody takes another program's file for ours: "AEJ1".
const APPLICATION: i32 = 0x4145_4a31;

/// How long a reader waits while the log is recovered or reset.
const BUSY: Duration = Duration::from_secs(3);

/// How often a writer tries to get its turn while another process writes, and how long it waits between: about 3 s in
/// all. SQLite's own steps grow to 100 ms, and would miss the short gaps that a busy process leaves.
const TRIES: i32 = 2_800;
const TRY: Duration = Duration::from_millis(1);

/// Sets how a writer waits for its turn: not for longer than it is `wanted`.
pub(crate) fn wait_for_turns(
    conn: &mut Connection,
    wanted: impl Fn() -> bool + Send + 'static,
) -> rusqlite::Result<()> {
    conn.busy_handler(Some(move |tries| {
        std::thread::sleep(TRY);
        tries < TRIES && wanted()
    }))
}

/// Statements that a connection keeps prepared; more than there are.
const STATEMENTS: usize = 128;

/// What an answered call outlives.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A power cut: each commit waits for the disk.
    #[default]
    Full,
    /// A killed process; a power cut may take the last commits with it.
    Normal,
    /// A killed process; a power cut may destroy the file. For tests.
    Off,
}

impl Synchronous {
    const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later version of this store made it.
    #[error("{path} has schema version {found}, and this program knows versions up to {known}: use a newer program", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// It is some other program's database.
    #[error("{path} is a database of another program", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is a folder.
    #[error("{path} is a folder, and a store is a file in one", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// It could not be opened, read or written.
    #[error("cannot open a store: {0}")]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether opening may work later, with nothing changed but the world: the file is locked or read-only, its folder is
    /// not there yet, the disk is full or fails. A newer schema, another program's file, a corrupt one and a folder stay
    /// what they are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let refused = async_endpoints_sqlite::SqliteStore::open("/no/such/folder/jobs.db").await.unwrap_err();
    /// assert!(refused.is_transient());
    /// # }
    /// ```
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Newer { .. } | Self::Foreign { .. } | Self::Folder { .. } => false,
        }
    }

    pub(crate) fn of(fail: Fail, path: &Path) -> Self {
        Self::Store(fail.into_error(path))
    }
}

/// Why one try to open a file failed.
enum Trouble {
    Fail(Fail),
    Refused(OpenError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fail(error.into())
    }
}

/// The connection that writes, with the schema up to date. Switching a fresh file to a write-ahead log needs it alone,
/// and SQLite does not wait for that: of several that open it at once, all but one try again.
pub(crate) fn writer(path: &Path, synchronous: Synchronous) -> Result<Connection, OpenError> {
    if path.is_dir() {
        return Err(OpenError::Folder { path: path.to_owned() });
    }
    let began = Instant::now();
    loop {
        match try_writer(path, synchronous) {
            Ok(conn) => return Ok(conn),
            Err(Trouble::Fail(fail)) if fail.is_busy() && began.elapsed() < BUSY => std::thread::sleep(TRY),
            Err(Trouble::Fail(fail)) => return Err(OpenError::of(fail, path)),
            Err(Trouble::Refused(refused)) => return Err(refused),
        }
    }
}

fn try_writer(path: &Path, synchronous: Synchronous) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    // SQLite opens what cannot be written all the same, and would never find out that it can be again.
    if conn.is_readonly("main")? {
        return Err(Trouble::Fail(Fail::Unavailable("the file is read-only".to_owned())));
    }
    wait_for_turns(&mut conn, || true)?;
    look(&conn, path)?;
    // A file that has tables, or a log, stays as it is: this is for the fresh one alone, and before both.
    conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("write-ahead logging is not possible there (journal mode {mode}); a network file system?");
        return Err(Trouble::Fail(Fail::Unavailable(why)));
    }
    settle_down(&conn, synchronous)?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// A connection that sees what was committed when a step began, and cannot write.
pub(crate) fn reader(path: &Path) -> Result<Connection, Fail> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8000;")?;
    Ok(conn)
}

/// The log is copied back every 1 000 pages (4 MB), and cut when it begins anew if a long reader had let it grow.
fn settle_down(conn: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let synchronous = synchronous.pragma();
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -32000;
         PRAGMA wal_autocheckpoint = 1000;
         PRAGMA journal_size_limit = {LOG_BYTES};"
    ))
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

/// A newer program may have changed the schema while this one runs: it must not write as if nothing had happened.
pub(crate) fn check_version(conn: &Connection) -> Result<(), Fail> {
    let found: i64 = conn.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
    if found == STEPS.len() as i64 {
        return Ok(());
    }
    let known = STEPS.len();
    Err(Fail::Unavailable(format!("its schema is now of version {found}, not {known}: restart with a newer program")))
}

/// The schema's version, of one moment: another process may just be making it.
fn look(conn: &Connection, path: &Path) -> Result<usize, Trouble> {
    check(&*conn.unchecked_transaction()?, path)
}

/// The schema's version, if it is one that can be used here. Within a transaction.
fn check(conn: &Connection, path: &Path) -> Result<usize, Trouble> {
    let (application, found) = (number(conn, "application_id")?, number(conn, "user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = tables == 0 && application == 0 && found == 0;
    if !fresh && application != i64::from(APPLICATION) {
        return Err(Trouble::Refused(OpenError::Foreign { path: path.to_owned() }));
    }
    match usize::try_from(found) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => {
            let known = STEPS.len() as i64;
            Err(Trouble::Refused(OpenError::Newer { path: path.to_owned(), found, known }))
        }
    }
}

/// All missing steps in one transaction: a process that dies here leaves the file as it was. Two processes that open
/// a file at once take turns, and the second finds nothing to do.
fn migrate(conn: &mut Connection, path: &Path) -> Result<(), Trouble> {
    if look(conn, path)? == STEPS.len() {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = check(&tx, path)?;
    apply(&tx, &STEPS[version..], STEPS.len())?;
    Ok(tx.commit()?)
}

fn apply(conn: &Connection, steps: &[&str], version: usize) -> rusqlite::Result<()> {
    steps.iter().try_for_each(|step| conn.execute_batch(step))?;
    conn.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {version};"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second of two steps fails in the middle: the file stays what it was, and opens as that.
    #[test]
    fn a_file_that_another_process_is_just_making_is_no_other_programs() {
        for round in 0..30 {
            let path = std::env::temp_dir().join(format!("made-{}-{round}.db", std::process::id()));
            let all = std::sync::Barrier::new(8);
            let open = || {
                all.wait();
                writer(&path, Synchronous::Off).map(drop)
            };
            let opened = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("it ends"))
            });
            std::fs::remove_file(&path).unwrap();
            assert!(opened.is_ok(), "{}", opened.unwrap_err());
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let path = std::env::temp_dir().join(format!("steps-{}.db", std::process::id()));
        let Ok(mut conn) = writer(&path, Synchronous::Off) else { panic!("it opens") };
        let before = schema(&conn);
        let steps =
            ["ALTER TABLE meta ADD COLUMN more INTEGER", "CREATE TABLE later (one); INSERT INTO nowhere VALUES (1)"];
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        assert!(apply(&tx, &steps, STEPS.len() + 2).is_err());
        drop(tx);
        assert_eq!(schema(&conn), before);
        drop(conn);
        let Ok(conn) = writer(&path, Synchronous::Off) else { panic!("it opens again") };
        assert_eq!(schema(&conn), before);
        drop(conn);
        std::fs::remove_file(&path).unwrap();
    }

    fn schema(conn: &Connection) -> Vec<String> {
        let mut all = conn.prepare("SELECT ifnull(sql, name) FROM sqlite_schema ORDER BY 1").expect("it is SQL");
        all.query_map([], |row| row.get(0)).expect("it answers").collect::<Result<_, _>>().expect("text")
    }
}
