//! Opens a file: settings of a connection, and the schema brought up to date.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_endpoints_core::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use crate::{failure::Failure, space::LOG_BYTES};

/// Statements that upgrade each version of the schema to the next. Released steps never change.
const STEPS: [&str; 3] = [include_str!("sql/001.sql"), include_str!("sql/002.sql"), include_str!("sql/003.sql")];

/// The version of the schema that this program makes.
const VERSION: i64 = STEPS.len() as i64;

/// The oldest version of the schema whose programs can use a file of [`VERSION`]. Raise it to [`VERSION`] with a step that
/// an older program would break; leave it for an added column with a default, an added table or an added index.
const MIN_VERSION: i64 = 1;

/// The `application_id` in the header of each file of this store: "AEJ1".
const APPLICATION: i32 = 0x4145_4a31;

/// How long a reader waits while the log is recovered or reset.
const BUSY: Duration = Duration::from_secs(3);

/// How often a writer tries to lock the file while another process writes, and the pause between two tries: about 3 s in
/// all. SQLite's own pauses grow to 100 ms, and would miss the short gaps that a busy process leaves.
const TRIES: i32 = 2_800;
const TRY: Duration = Duration::from_millis(1);

/// Makes a writer wait for the lock while `wanted` returns true, for at most about 3 s.
pub(crate) fn set_busy_handler(
    conn: &mut Connection,
    wanted: impl Fn() -> bool + Send + 'static,
) -> rusqlite::Result<()> {
    conn.busy_handler(Some(move |tries| {
        std::thread::sleep(TRY);
        tries < TRIES && wanted()
    }))
}

/// Prepared statements that a connection keeps: more than this store has.
const STATEMENTS: usize = 128;

/// What an answered call survives.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A power cut: each commit waits for the disk.
    #[default]
    Full,
    /// A killed process. A power cut may lose the last commits.
    Normal,
    /// A killed process. A power cut may destroy the file. For tests.
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
    /// A later version of this store changed the file in a way that this program does not know.
    #[error(
        "{path} has schema version {found}, which needs a program of version {needed} or later: this program knows \
         versions up to {known}",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The oldest version that a program must know to use the file.
        needed: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("{path} is a database of another program", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{path} is a folder: expected the path of a file", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file could not be opened, read or written.
    #[error("cannot open a store: {0}")]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether opening may succeed later without a change of the path: the file is locked or read-only, its folder does not
    /// exist yet, or the disk is full or fails. A newer schema, another program's file, a damaged file and a folder are not
    /// transient.
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

    pub(crate) fn of(failure: Failure, path: &Path) -> Self {
        Self::Store(failure.into_error(path))
    }
}

/// Why one try to open a file failed.
enum TryError {
    Failure(Failure),
    Refused(OpenError),
}

impl From<rusqlite::Error> for TryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failure(error.into())
    }
}

/// Opens the connection that writes and brings the schema up to date. Tries again while the file is busy: switching a new
/// file to a write-ahead log needs exclusive access, for which SQLite does not wait.
pub(crate) fn writer(path: &Path, synchronous: Synchronous) -> Result<Connection, OpenError> {
    if path.is_dir() {
        return Err(OpenError::Folder { path: path.to_owned() });
    }
    let began = Instant::now();
    loop {
        match try_writer(path, synchronous) {
            Ok(conn) => return Ok(conn),
            Err(TryError::Failure(failure)) if failure.is_busy() && began.elapsed() < BUSY => std::thread::sleep(TRY),
            Err(TryError::Failure(failure)) => return Err(OpenError::of(failure, path)),
            Err(TryError::Refused(refused)) => return Err(refused),
        }
    }
}

fn try_writer(path: &Path, synchronous: Synchronous) -> Result<Connection, TryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    // SQLite opens a read-only file as such, and would not notice when it becomes writable.
    if conn.is_readonly("main")? {
        return Err(TryError::Failure(Failure::Unavailable("the file is read-only".to_owned())));
    }
    set_busy_handler(&mut conn, || true)?;
    read_version(&conn, path)?;
    // Has an effect only on a new file, before it has tables or a log.
    conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let reason = format!(
            "write-ahead logging is not possible here (journal mode {mode}): expected a local file system, not a network \
             file system"
        );
        return Err(TryError::Failure(Failure::Unavailable(reason)));
    }
    configure(&conn, synchronous)?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// Opens a read-only connection.
pub(crate) fn reader(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    cache_statements(&conn)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8000;")?;
    Ok(conn)
}

/// Sets up the writer. The log is copied back every 1 000 pages (4 MB), and a log that readers let grow is cut when it
/// restarts.
fn configure(conn: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    cache_statements(conn)?;
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

/// Prepares each statement once. Without the planner's stability guarantee, SQLite prepares a statement again whenever a
/// parameter that its plan may depend on, such as a `LIMIT`, gets another value.
fn cache_statements(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Writes the first page with the content that it has. An `UPDATE` would not: SQLite skips rows that stay equal.
pub(crate) fn rewrite_header(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "user_version", pragma(conn, "user_version")?)
}

fn min_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT min_version FROM meta")?.query_row([], |row| row.get(0))
}

/// Fails if a newer program has upgraded the schema while this one runs, so that this one must not write any more.
pub(crate) fn check_schema(conn: &Connection) -> Result<(), Failure> {
    let needed = min_version(conn)?;
    if needed <= VERSION {
        return Ok(());
    }
    Err(Failure::Unavailable(format!(
        "its schema was upgraded and now needs a program of version {needed} or later, not {VERSION}: start a newer program"
    )))
}

/// Reads the schema's version in one transaction, as another process may be creating the schema.
fn read_version(conn: &Connection, path: &Path) -> Result<i64, TryError> {
    version(&*conn.unchecked_transaction()?, path)
}

/// The schema's version, if this program can use it. Call this within a transaction.
fn version(conn: &Connection, path: &Path) -> Result<i64, TryError> {
    let (application, found) = (pragma(conn, "application_id")?, pragma(conn, "user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && application == 0 && found == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION) {
        return Err(TryError::Refused(OpenError::Foreign { path: path.to_owned() }));
    }
    let needed = min_version(conn)?;
    if needed > VERSION {
        return Err(TryError::Refused(OpenError::Newer { path: path.to_owned(), found, needed, known: VERSION }));
    }
    Ok(found)
}

/// Applies all missing steps in one transaction: if the process dies, the file stays as it was. Of several processes that
/// open a file at once, one upgrades it.
fn migrate(conn: &mut Connection, path: &Path) -> Result<(), TryError> {
    if read_version(conn, path)? >= VERSION {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = usize::try_from(version(&tx, path)?).unwrap_or(0);
    if let Some(steps @ [_, ..]) = STEPS.get(found..) {
        apply(&tx, steps, VERSION, MIN_VERSION)?;
    }
    Ok(tx.commit()?)
}

fn apply(conn: &Connection, steps: &[&str], version: i64, min_version: i64) -> rusqlite::Result<()> {
    steps.iter().try_for_each(|step| conn.execute_batch(step))?;
    conn.execute("UPDATE meta SET min_version = ?1", [min_version])?;
    conn.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {version};"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_create_a_file_at_once_all_open_it() {
        for round in 0..30 {
            let path = std::env::temp_dir().join(format!("made-{}-{round}.db", std::process::id()));
            let all = std::sync::Barrier::new(8);
            let open = || {
                all.wait();
                writer(&path, Synchronous::Off).map(drop)
            };
            let opened = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("the thread ends"))
            });
            std::fs::remove_file(&path).unwrap();
            assert!(opened.is_ok(), "{}", opened.unwrap_err());
        }
    }

    /// The second of two steps fails in the middle.
    #[test]
    fn failed_migration_leaves_the_file_unchanged() {
        let path = std::env::temp_dir().join(format!("steps-{}.db", std::process::id()));
        let Ok(mut conn) = writer(&path, Synchronous::Off) else { panic!("the file opens") };
        let before = schema(&conn);
        let steps =
            ["ALTER TABLE meta ADD COLUMN more INTEGER", "CREATE TABLE later (one); INSERT INTO nowhere VALUES (1)"];
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        assert!(apply(&tx, &steps, VERSION + 2, MIN_VERSION).is_err());
        drop(tx);
        assert_eq!(schema(&conn), before);
        drop(conn);
        let Ok(conn) = writer(&path, Synchronous::Off) else { panic!("the file opens again") };
        assert_eq!(schema(&conn), before);
        drop(conn);
        std::fs::remove_file(&path).unwrap();
    }

    fn schema(conn: &Connection) -> Vec<String> {
        let mut all = conn.prepare("SELECT ifnull(sql, name) FROM sqlite_schema ORDER BY 1").expect("valid SQL");
        all.query_map([], |row| row.get(0)).expect("a schema").collect::<Result<_, _>>().expect("text")
    }
}
