//! A real PgBouncer in front of a server, in transaction mode: each transaction may use another session of the server.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Instant,
};

use super::{
    super::{POLL_INTERVAL, TIMEOUT, folder::Folder, missing, port},
    PostgresServer,
    programs::{as_user, give},
    psql,
};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A running PgBouncer. Dropping it kills the process and removes its folder.
///
/// ```no_run
/// use async_endpoints_testkit::server::{PgBouncer, PostgresServer};
///
/// let postgres = PostgresServer::start();
/// let pooler = PgBouncer::of(&postgres);
/// let url = pooler.url_of(&postgres.database());
/// ```
#[derive(Debug)]
pub struct PgBouncer {
    process: Child,
    port: u16,
    _folder: Folder,
}

impl PgBouncer {
    /// Starts PgBouncer with its default settings, in transaction mode, in front of all databases of the server.
    pub fn of(postgres: &PostgresServer) -> Self {
        Self::with(postgres, &[])
    }

    /// Starts PgBouncer with additional settings, in the syntax of `pgbouncer.ini`.
    pub fn with(postgres: &PostgresServer, settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        give(folder.path());
        let settings: String = settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        // Another process may bind a free port before PgBouncer does.
        for _ in 0..20 {
            let port = port::free();
            let config = format!(
                "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
                 max_client_conn = 500\n{settings}",
                postgres.port()
            );
            folder.write("pgbouncer.ini", &config);
            if let Some(process) = start(&folder, port) {
                return Self { process, port, _folder: folder };
            }
        }
        panic!("pgbouncer does not start: {}", folder.log());
    }

    /// The port of all databases.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a server's database, through PgBouncer.
    pub fn url_of(&self, url: &str) -> String {
        let database = url.rsplit('/').next().unwrap_or_default();
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Both calls may fail if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Starts PgBouncer and waits until it answers. Returns `None` if the process ends early.
fn start(folder: &Folder, port: u16) -> Option<Child> {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("the log opens");
    let mut command = Command::new(PROGRAM);
    as_user(&mut command).arg("pgbouncer.ini").current_dir(folder.path());
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let mut process = started.unwrap_or_else(|error| missing("pgbouncer", "pgbouncer", &error));
    let deadline = Instant::now() + TIMEOUT;
    while process.try_wait().expect("the child's status is known").is_none() {
        if psql(&format!("postgres://postgres@127.0.0.1:{port}/postgres"), "SELECT 'pooled'") == "pooled" {
            return Some(process);
        }
        assert!(Instant::now() < deadline, "pgbouncer does not answer: {}", folder.log());
        sleep(POLL_INTERVAL);
    }
    None
}
