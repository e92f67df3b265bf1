//! Real servers for tests: each in a temporary folder, on a port of 127.0.0.1 that nobody else has, ended by its own
//! process handle. A program that is missing is a panic with the name of its Debian package: no test is skipped.
//!
//! Must not know stores nor drivers: what it asks a server it asks with the server's own client, or by hand.

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

/// Longer than any server takes for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Durable as the docs recommend, and quick where only tests care.
const DEFAULTS: &[(&str, &str)] = &[
    ("bind", "127.0.0.1"),
    ("protected-mode", "yes"),
    ("daemonize", "no"),
    ("save", "\"\""),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("maxmemory-policy", "noeviction"),
    // A replica that joins would wait five seconds for others to join with it.
    ("repl-diskless-sync-delay", "0"),
];

/// A `redis-server` of its own. Gone with its folder when this is dropped.
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
    // Before its folder, so that it has ended when that is removed.
    running: Mutex<Option<Redis>>,
    folder: Folder,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
}

impl RedisServer {
    /// Starts one: append-only file, fsync every second, nothing evicted.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with other settings: names and values as `redis.conf` has them, quotes included. A `requirepass` becomes
    /// part of [`url`](Self::url).
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(Folder::new(), settings, false)
    }

    /// Starts one that speaks TLS where [`url`](Self::url) points to, by a certificate that [`ca`](Self::ca) signed.
    pub fn tls() -> Self {
        let folder = Folder::new();
        tls::certify(folder.path());
        Self::start_in(folder, tls::SETTINGS, true)
    }

    /// Starts a replica of `primary`, and returns once it has all that the primary had.
    pub fn replica_of(primary: &Self) -> Self {
        let replica = Self::start();
        replica.follow(primary);
        replica
    }

    /// The one that all tests of this process share which run at the same time. It ends with its last user, so that it
    /// does not outlive the tests. Keep to keys of your own, and leave it running.
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
        // Somebody else may take a port between the look at it and the server's bind.
        for _ in 0..20 {
            let (port, tls_port) = (port::free(), tls.then(port::free));
            folder.write("redis.conf", &config(settings, port, tls_port));
            if let Some(redis) = Redis::start(&folder, port, password.as_deref(), PATIENCE) {
                return Self { running: Mutex::new(Some(redis)), folder, port, tls_port, password };
            }
        }
        panic!("redis-server does not start: {}", folder.log());
    }

    /// Where it listens for what [`url`](Self::url) says.
    pub fn port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://`, with the password if it wants one.
    pub fn url(&self) -> String {
        let scheme = if self.tls_port.is_some() { "rediss" } else { "redis" };
        let password = self.password.as_ref().map_or_else(String::new, |word| format!(":{word}@"));
        format!("{scheme}://{password}127.0.0.1:{}", self.port())
    }

    /// The certificate that a client has to trust; only [`tls`](Self::tls) has one.
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls_port.map(|_| self.folder.path().join(tls::CA))
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(Redis::pid)
    }

    /// Ends it as a crash does: SIGKILL, and it is gone when this returns.
    pub fn kill(&self) {
        self.running().take();
    }

    /// Starts it again, in the same folder and on the same port; kills it first if it runs. Returns when it has loaded its
    /// files and answers.
    pub fn restart(&self) {
        let mut running = self.running();
        running.take();
        let until = Instant::now() + PATIENCE;
        while running.is_none() {
            assert!(Instant::now() < until, "redis-server does not start again: {}", self.folder.log());
            *running = Redis::start(&self.folder, self.port, self.password.as_deref(), PATIENCE);
        }
    }

    /// Freezes it: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// What `redis-cli` prints for a command; an error that the server answers is text like any other.
    pub fn cli(&self, words: &[&str]) -> String {
        process::cli(self.port, self.password.as_deref(), words)
    }

    /// Makes it a replica of `primary`, and returns once it has all that the primary had.
    pub fn follow(&self, primary: &Self) {
        if let Some(word) = &primary.password {
            self.cli(&["CONFIG", "SET", "masterauth", word]);
        }
        assert_eq!(self.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]), "OK");
        let until = Instant::now() + PATIENCE;
        while !self.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(Instant::now() < until, "it does not follow: {}", self.folder.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Makes a replica a primary.
    pub fn promote(&self) {
        assert_eq!(self.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    fn signal(&self, name: &str) {
        let running = self.running();
        running.as_ref().expect("a server that runs").signal(name);
    }

    fn running(&self) -> MutexGuard<'_, Option<Redis>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever is said twice counts as it was said last.
fn config(settings: &[(&str, &str)], port: u16, tls_port: Option<u16>) -> String {
    let ports = [("port", Some(port)), ("tls-port", tls_port)];
    let ports = ports.iter().filter_map(|(name, port)| Some(format!("{name} {}\n", (*port)?)));
    DEFAULTS.iter().chain(settings).map(|(name, value)| format!("{name} {value}\n")).chain(ports).collect()
}

#[cfg(test)]
mod tests;
