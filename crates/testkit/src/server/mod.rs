//! Real servers for tests: each in a temporary folder, on its own port of 127.0.0.1, stopped by its own process handle. A
//! missing program is a panic with the name of its Debian package: no test is skipped.
//!
//! Must not know stores or drivers: it uses the server's own client.

mod port;
mod process;
mod tls;

pub use tls::certify;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::sleep,
    time::{Duration, Instant},
};

use process::{Folder, Redis};

/// Longer than any server takes to start or to follow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Durable as the docs recommend, and fast to start.
const DEFAULTS: &[(&str, &str)] = &[
    ("bind", "127.0.0.1"),
    ("protected-mode", "yes"),
    ("daemonize", "no"),
    ("save", "\"\""),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("maxmemory-policy", "noeviction"),
    // By default, a primary waits five seconds for more replicas before it starts a transfer.
    ("repl-diskless-sync-delay", "0"),
];

/// A `redis-server`. Dropping it stops the server and removes its folder.
///
/// ```no_run
/// use async_endpoints_testkit::server::RedisServer;
///
/// let redis = RedisServer::with(&[("maxmemory", "50mb")]);
/// assert_eq!(redis.cli(&["PING"]), "PONG");
/// redis.kill();
/// redis.restart();
/// ```
#[derive(Debug)]
pub struct RedisServer {
    // Before `folder`, so that the process has ended when the folder is removed.
    running: Mutex<Option<Redis>>,
    folder: Folder,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
}

impl RedisServer {
    /// Starts a server with an append-only file, fsync every second and no eviction.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more settings: names and values as in `redis.conf`, quotes included. A `requirepass` becomes part
    /// of [`url`](Self::url).
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), settings, false)
    }

    /// Starts a server with TLS on the port of [`url`](Self::url), and a certificate signed by [`ca`](Self::ca).
    pub fn tls() -> Self {
        let folder = Folder::new();
        tls::certify(folder.path());
        Self::start_in(folder, tls::SETTINGS, true)
    }

    /// Starts a replica of `primary`, and returns when it is in sync.
    pub fn replica_of(primary: &Self) -> Self {
        let replica = Self::start();
        replica.follow(primary);
        replica
    }

    /// The server shared by concurrent tests of this process. It stops with its last user, so that it does not outlive the
    /// tests. Use keys of your own, and do not stop it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    fn start_in(folder: Folder, settings: &[(&str, &str)], tls: bool) -> Self {
        let password = settings.iter().rfind(|(name, _)| *name == "requirepass").map(|(_, word)| word.to_string());
        // Another process may take the port between the check and the server's bind.
        for _ in 0..20 {
            let (port, tls_port) = (port::free(), tls.then(port::free));
            folder.write("redis.conf", &config(settings, port, tls_port));
            if let Some(redis) = Redis::start(&folder, port, password.as_deref(), PATIENCE) {
                return Self { running: Mutex::new(Some(redis)), folder, port, tls_port, password };
            }
        }
        panic!("redis-server does not start: {}", folder.log());
    }

    /// The port of [`url`](Self::url).
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://` with TLS, and with the password if there is one.
    pub fn url(&self) -> String {
        let scheme = if self.tls_port.is_some() { "rediss" } else { "redis" };
        let password = self.password.as_ref().map_or_else(String::new, |word| format!(":{word}@"));
        format!("{scheme}://{password}127.0.0.1:{}", self.port())
    }

    /// The certificate authority that a client has to trust; only with [`tls`](Self::tls).
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls_port.map(|_| self.folder.path().join(tls::CA))
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(Redis::pid)
    }

    /// Kills the process with SIGKILL, and returns when it has ended.
    pub fn kill(&self) {
        self.running().take();
    }

    /// Starts the server again in the same folder and on the same port, and kills it first if it runs. Returns when it has
    /// loaded its files and answers.
    pub fn restart(&self) {
        let mut running = self.running();
        running.take();
        let until = Instant::now() + PATIENCE;
        while running.is_none() {
            assert!(Instant::now() < until, "redis-server does not start again: {}", self.folder.log());
            *running = Redis::start(&self.folder, self.port, self.password.as_deref(), PATIENCE);
        }
    }

    /// Suspends the process: connections stay open, and no command is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Resumes the process after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Runs a command with `redis-cli` and returns its output. An error reply is output too.
    pub fn cli(&self, args: &[&str]) -> String {
        process::cli(self.port, self.password.as_deref(), args)
    }

    /// Makes the server a replica of `primary`, and returns when it is in sync.
    pub fn follow(&self, primary: &Self) {
        if let Some(word) = &primary.password {
            self.cli(&["CONFIG", "SET", "masterauth", word]);
        }
        assert_eq!(self.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]), "OK");
        let until = Instant::now() + PATIENCE;
        while !self.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(Instant::now() < until, "the replica is not in sync: {}", self.folder.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Makes a replica a primary.
    pub fn promote(&self) {
        assert_eq!(self.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    fn signal(&self, name: &str) {
        let running = self.running();
        running.as_ref().expect("the server runs").signal(name);
    }

    fn running(&self) -> MutexGuard<'_, Option<Redis>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of `redis.conf`. Later settings override earlier ones.
fn config(settings: &[(&str, &str)], port: u16, tls_port: Option<u16>) -> String {
    let ports = [("port", Some(port)), ("tls-port", tls_port)];
    let ports = ports.iter().filter_map(|(name, port)| Some(format!("{name} {}\n", (*port)?)));
    DEFAULTS.iter().chain(settings).map(|(name, value)| format!("{name} {value}\n")).chain(ports).collect()
}

#[cfg(test)]
mod tests;
