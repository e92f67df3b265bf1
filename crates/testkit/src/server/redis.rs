//! Real Redis servers. Must not depend on drivers: commands go through `redis-cli` or a plain TCP connection.

mod process;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::sleep,
    time::{Duration, Instant},
};

use self::process::Redis;
use super::{TIMEOUT, folder::Folder, port, tls};

/// The durability settings that the docs recommend, without delays that slow tests down.
const DEFAULTS: &[(&str, &str)] = &[
    ("bind", "127.0.0.1"),
    ("protected-mode", "yes"),
    ("daemonize", "no"),
    ("save", "\"\""),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("maxmemory-policy", "noeviction"),
    // By default, a primary waits five seconds for more replicas before it synchronizes the first one.
    ("repl-diskless-sync-delay", "0"),
];

/// Settings for TLS. Paths are relative to the server's folder, its working directory.
const TLS: &[(&str, &str)] = &[
    ("tls-ca-cert-file", tls::CA),
    ("tls-cert-file", "server.crt"),
    ("tls-key-file", "server.key"),
    ("tls-auth-clients", "no"),
];

/// A running `redis-server`. Dropping it kills the process and removes its folder.
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
    // Fields drop in order: the process ends before its folder is removed.
    process: Mutex<Option<Redis>>,
    folder: Folder,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
}

impl RedisServer {
    /// Starts a server with an append-only file, one fsync per second, and no eviction.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with additional settings, in the syntax of `redis.conf`. [`url`](Self::url) contains the password
    /// of a `requirepass` setting.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), settings, false)
    }

    /// Starts a server with TLS. Its certificate is signed by the authority of [`ca`](Self::ca).
    pub fn tls() -> Self {
        let folder = Folder::new();
        tls::certify(folder.path());
        Self::start_in(folder, TLS, true)
    }

    /// Starts a replica of `primary` and waits for the initial synchronization.
    pub fn replica_of(primary: &Self) -> Self {
        let replica = Self::start();
        replica.follow(primary);
        replica
    }

    /// A server shared by all concurrent tests of this process. It ends with its last handle. Tests must use separate
    /// keys and must not stop the server.
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
        let password = settings.iter().rfind(|(name, _)| *name == "requirepass").map(|(_, value)| value.to_string());
        // Another process may bind a free port before the server does.
        for _ in 0..20 {
            let (port, tls_port) = (port::free(), tls.then(port::free));
            folder.write("redis.conf", &config(settings, port, tls_port));
            if let Some(redis) = Redis::start(&folder, port, password.as_deref(), TIMEOUT) {
                return Self { process: Mutex::new(Some(redis)), folder, port, tls_port, password };
            }
        }
        panic!("redis-server does not start: {}", folder.log());
    }

    /// The port of [`url`](Self::url).
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT`, with `rediss` for TLS, and with the password if one is required.
    pub fn url(&self) -> String {
        let scheme = if self.tls_port.is_some() { "rediss" } else { "redis" };
        let password = self.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("{scheme}://{password}127.0.0.1:{}", self.port())
    }

    /// The path of the authority's certificate, for a server started with [`tls`](Self::tls).
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls_port.map(|_| self.folder.path().join(tls::CA))
    }

    /// The folder with the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id, or `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Redis::pid)
    }

    /// Kills the process with SIGKILL and waits until it has ended.
    pub fn kill(&self) {
        self.process().take();
    }

    /// Kills the process if it runs, and starts a new one with the same folder and port. Returns when the server has loaded
    /// its files and answers.
    pub fn restart(&self) {
        let mut process = self.process();
        process.take();
        let deadline = Instant::now() + TIMEOUT;
        while process.is_none() {
            assert!(Instant::now() < deadline, "redis-server does not restart: {}", self.folder.log());
            *process = Redis::start(&self.folder, self.port, self.password.as_deref(), TIMEOUT);
        }
    }

    /// Freezes the process with SIGSTOP: connections stay open, and no request is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Continues the process after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Runs a command with `redis-cli` and returns its output, which may be an error of the server.
    pub fn cli(&self, command: &[&str]) -> String {
        process::cli(self.port, self.password.as_deref(), command)
    }

    /// Makes the server a replica of `primary` and waits for the initial synchronization.
    pub fn follow(&self, primary: &Self) {
        if let Some(password) = &primary.password {
            self.cli(&["CONFIG", "SET", "masterauth", password]);
        }
        assert_eq!(self.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]), "OK");
        let deadline = Instant::now() + TIMEOUT;
        while !self.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(Instant::now() < deadline, "the replica does not synchronize: {}", self.folder.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Makes the replica a primary.
    pub fn promote(&self) {
        assert_eq!(self.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    fn signal(&self, name: &str) {
        self.process().as_ref().expect("the server runs").signal(name);
    }

    fn process(&self) -> MutexGuard<'_, Option<Redis>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of `redis.conf`. Redis uses the last of repeated settings, so `settings` override the defaults.
fn config(settings: &[(&str, &str)], port: u16, tls_port: Option<u16>) -> String {
    let ports = [("port", Some(port)), ("tls-port", tls_port)];
    let ports = ports.iter().filter_map(|(name, port)| Some(format!("{name} {}\n", (*port)?)));
    DEFAULTS.iter().chain(settings).map(|(name, value)| format!("{name} {value}\n")).chain(ports).collect()
}

#[cfg(test)]
mod tests;
