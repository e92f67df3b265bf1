//! Real PostgreSQL servers, of Debian's newest version or of a newer one. Must not depend on drivers: SQL goes through `psql`.

mod data;
mod pooler;
mod process;
mod programs;

pub use pooler::PgBouncer;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::Instant,
};

use self::{
    process::Postgres,
    programs::{give, program, run},
};
use super::{POLL_INTERVAL, TIMEOUT, folder::Folder, port, tls};

/// Settings for tests. All that concerns durability is the server's default: `fsync`, `full_page_writes` and
/// `synchronous_commit` are on.
const DEFAULTS: &[(&str, &str)] = &[
    ("listen_addresses", "'127.0.0.1'"),
    ("unix_socket_directories", "''"),
    // Tests run in parallel, and each store has several connections.
    ("max_connections", "600"),
    ("shared_buffers", "'64MB'"),
    ("log_min_messages", "warning"),
    ("timezone", "'UTC'"),
    // A standby follows within this time after its primary has become reachable.
    ("wal_retrieve_retry_interval", "100"),
];

/// Settings for many short tests.
const VOLATILE: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];

/// Settings for TLS. Paths are relative to the data folder.
const TLS: &[(&str, &str)] =
    &[("ssl", "on"), ("ssl_cert_file", "'../server.crt'"), ("ssl_key_file", "'../server.key'")];

/// A server while tests use it.
type Shared = Mutex<Weak<PostgresServer>>;

/// A running PostgreSQL server. Dropping it kills the process and removes its folder.
///
/// ```no_run
/// use async_endpoints_testkit::server::PostgresServer;
///
/// let postgres = PostgresServer::with(&[("max_connections", "20")]);
/// let url = postgres.database();
/// assert_eq!(postgres.sql("SELECT 1 + 1"), "2");
/// postgres.kill();
/// postgres.restart();
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    // Fields drop in order: the process ends before its folder is removed.
    process: Mutex<Option<Postgres>>,
    folder: Folder,
    /// The folder of the version's programs.
    programs: PathBuf,
    port: u16,
    tls: bool,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Starts an empty server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts an empty server with additional settings, in the syntax of `postgresql.conf`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let (folder, programs) = (Folder::new(), programs::debian());
        data::create(programs, &folder, &data_of(&folder));
        Self::start_in(folder, programs.to_owned(), settings, false)
    }

    /// Starts a server that accepts connections with and without TLS. Its certificate is for 127.0.0.1 and `localhost`, and
    /// signed by the authority of [`ca`](Self::ca).
    pub fn tls() -> Self {
        let (folder, programs) = (Folder::new(), programs::debian());
        data::create(programs, &folder, &data_of(&folder));
        tls::certify(folder.path());
        let key = folder.path().join("server.key");
        give(&key);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the file exists");
        Self::start_in(folder, programs.to_owned(), TLS, true)
    }

    /// Starts a standby that follows `primary` and answers queries that only read.
    pub fn standby_of(primary: &Self) -> Self {
        let folder = Folder::new();
        give(folder.path());
        let mut copy = program(&primary.programs, "pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-p", &primary.port.to_string(), "-U", "postgres"]);
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-D"]).arg(data_of(&folder));
        run(copy.current_dir(folder.path()));
        Self::start_in(folder, primary.programs.clone(), &[], false)
    }

    /// A server shared by all concurrent tests of this process. It ends with its last handle. Tests must use separate
    /// [databases](Self::database) or schemas, and must not stop the server.
    pub fn shared() -> Arc<Self> {
        static SHARED: Shared = Shared::new(Weak::new());
        Self::share(&SHARED, Self::start)
    }

    /// Like [`shared`](Self::shared), for many short tests: the server does not wait for the disk, so a store accepts it only
    /// with `allow_volatile`.
    pub fn volatile() -> Arc<Self> {
        static SHARED: Shared = Shared::new(Weak::new());
        Self::share(&SHARED, || Self::with(VOLATILE))
    }

    /// Like [`volatile`](Self::volatile), with a newer major version than Debian's, which `cargo xtask test` installs. It cannot
    /// have a standby.
    pub fn newer() -> Arc<Self> {
        static SHARED: Shared = Shared::new(Weak::new());
        Self::share(&SHARED, || {
            let folder = Folder::new();
            let programs = programs::newer(&folder.path().join("programs"));
            data::create(&programs, &folder, &data_of(&folder));
            Self::start_in(folder, programs, VOLATILE, false)
        })
    }

    fn share(shared: &Shared, start: impl FnOnce() -> Self) -> Arc<Self> {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    fn start_in(folder: Folder, programs: PathBuf, settings: &[(&str, &str)], tls: bool) -> Self {
        let data = data_of(&folder);
        // The server uses the last of repeated settings.
        let settings: String =
            DEFAULTS.iter().chain(settings).map(|(name, value)| format!("{name} = {value}\n")).collect();
        let file = data.join("postgresql.conf");
        let before = fs::read_to_string(&file).expect("the server's settings");
        fs::write(&file, before + &settings).expect("the folder is writable");
        // Another process may bind a free port before the server does.
        for _ in 0..20 {
            let port = port::free();
            if let Some(postgres) = Postgres::start(command(&programs, port), &folder, &data, TIMEOUT) {
                let process = Mutex::new(Some(postgres));
                return Self { process, folder, programs, port, tls, databases: AtomicU32::new(0) };
            }
        }
        panic!("postgres does not start: {}", folder.log());
    }

    /// The port of [`url`](Self::url).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`. The user is a superuser and needs no password.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates an empty database and returns its URL.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        assert_eq!(self.sql(&format!("CREATE DATABASE {name}")), "CREATE DATABASE");
        self.url_of(&name)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The path of the authority's certificate, for a server started with [`tls`](Self::tls).
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.path().join(tls::CA))
    }

    /// The folder with the server's files: `log`, and the data in `data`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server logged: warnings and errors.
    pub fn log(&self) -> String {
        self.folder.log()
    }

    /// The process id, or `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Postgres::pid)
    }

    /// Kills all processes of the server with SIGKILL and waits until they have ended.
    pub fn kill(&self) {
        self.process().take();
    }

    /// Ends all sessions and stops the server in order, as `systemctl stop` does.
    pub fn stop(&self) {
        if let Some(postgres) = self.process().take() {
            postgres.signal("INT");
            postgres.wait();
        }
    }

    /// Kills the server if it runs, and starts a new one with the same folder and port. Returns when the server has recovered
    /// its data and accepts connections.
    pub fn restart(&self) {
        let mut process = self.process();
        process.take();
        let deadline = Instant::now() + TIMEOUT;
        while process.is_none() {
            assert!(Instant::now() < deadline, "postgres does not restart: {}", self.folder.log());
            *process =
                Postgres::start(command(&self.programs, self.port), &self.folder, &data_of(&self.folder), TIMEOUT);
        }
    }

    /// Freezes all processes of the server with SIGSTOP: connections stay open, and no request is answered.
    pub fn pause(&self) {
        self.process().as_ref().expect("the server runs").signal_all("STOP");
    }

    /// Continues the processes after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.process().as_ref().expect("the server runs").signal_all("CONT");
    }

    /// Runs SQL with `psql` in the database of [`url`](Self::url). Returns its output without headers, or the error.
    pub fn sql(&self, sql: &str) -> String {
        psql(&self.url(), sql)
    }

    /// Makes the standby a primary. Returns when it accepts writes.
    pub fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote()"), "t");
    }

    /// Waits until the standby has replayed everything that `primary` has written so far.
    pub fn catch_up(&self, primary: &Self) {
        // The insert position may lie behind the last record, where a standby arrives only with the next one.
        let written = primary.sql("SELECT pg_logical_emit_message(true, 'catch up', '')");
        let deadline = Instant::now() + TIMEOUT;
        while self.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) != "t" {
            assert!(Instant::now() < deadline, "the standby does not catch up: {}", self.folder.log());
            sleep(POLL_INTERVAL);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Postgres>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs SQL with `psql` at the URL. Returns its output without headers, or the error.
pub fn psql(url: &str, sql: &str) -> String {
    let mut command = Command::new(programs::debian().join("psql"));
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--command", sql, url]);
    let output = command.stdin(Stdio::null()).output().expect("psql starts");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

fn data_of(folder: &Folder) -> PathBuf {
    folder.path().join("data")
}

fn command(programs: &Path, port: u16) -> Command {
    let mut command = program(programs, "postgres");
    command.args(["-p", &port.to_string()]);
    command
}

#[cfg(test)]
mod tests;
