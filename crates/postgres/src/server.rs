//! Makes connections to a server that accepts writes, and checks that it keeps what it accepted. Knows nothing of jobs.

use std::{
    future::poll_fn,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Notification,
    config::{Config, Host, TargetSessionAttrs},
};

use crate::{
    cancel::cancel,
    fail::{OpenError, describe, refused},
    tls::Tls,
};

/// The time limit of connecting to one host, with all checks.
const CONNECT: Duration = Duration::from_millis(1500);
/// The time limit of a cancel request.
const CANCEL: Duration = Duration::from_secs(1);
/// The oldest supported version, as `server_version_num` has it.
const OLDEST: i32 = 150_000;

/// The server's own deadlines, in milliseconds. Each is below the caller's own, [`link::DEADLINE`](crate::link::DEADLINE).
const STARTUP: &str = "-c statement_timeout=4000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000";

const CHECK: &str = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int, \
    current_setting('transaction_read_only'), current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit')";

pub(crate) struct Server {
    /// One for each host of the address.
    hosts: Vec<Config>,
    /// The host that accepted writes last.
    primary: AtomicUsize,
    tls: Tls,
    /// The hosts without user and password, for error texts.
    pub(crate) address: String,
    allow_volatile: bool,
    /// A pooler refused the startup options.
    pooled: AtomicBool,
    /// Why the server can lose jobs, as of the last connection.
    volatile: Mutex<Option<String>>,
}

/// A new connection. Dropping the driver closes it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) notifications: mpsc::UnboundedReceiver<Notification>,
    pub(crate) driver: Driver,
}

/// The task that drives a connection.
pub(crate) struct Driver(JoinHandle<String>);

impl Driver {
    /// Waits until the connection has ended. Returns the reason.
    pub(crate) async fn ended(&mut self) -> String {
        (&mut self.0).await.unwrap_or_else(|_| "the connection's task has ended".to_owned())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    pub(crate) fn new(config: &Config, tls: Tls, allow_volatile: bool) -> Self {
        let number = config.get_hosts().len().max(config.get_hostaddrs().len());
        let hosts: Vec<Config> = (0..number).map(|at| host(config, at)).collect();
        let addresses: Vec<String> = hosts.iter().map(address).collect();
        Self {
            hosts,
            primary: AtomicUsize::new(0),
            tls,
            address: format!("postgres at {}", addresses.join(",")),
            allow_volatile,
            pooled: AtomicBool::new(false),
            volatile: Mutex::default(),
        }
    }

    /// Why the server can lose jobs; `None` if it keeps them.
    pub(crate) fn volatile(&self) -> Option<String> {
        self.volatile.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a pooler is known to be between the store and the server.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// Connects to the first host that accepts writes, beginning with the one that did last.
    pub(crate) async fn connect(&self) -> Result<Session, OpenError> {
        let first = self.primary.load(Ordering::Relaxed);
        let mut failed = None;
        for at in (0..self.hosts.len()).map(|step| (first + step) % self.hosts.len()) {
            let host = &self.hosts[at];
            // The limit also covers a server that accepts the connection and then does not answer.
            let made = match tokio::time::timeout(CONNECT, self.connect_to(host)).await {
                Ok(made) => made,
                Err(_) => Err(OpenError::Unavailable(format!("{}: no answer within {CONNECT:?}", name(host)))),
            };
            match made {
                Ok(session) => {
                    self.primary.store(at, Ordering::Relaxed);
                    return Ok(session);
                }
                // A host that may recover is worth another attempt, so its error counts.
                Err(error) => failed = Some(failed.filter(OpenError::is_transient).unwrap_or(error)),
            }
        }
        Err(failed.unwrap_or_else(|| OpenError::Refused("the address has no host".to_owned())))
    }

    async fn connect_to(&self, host: &Config) -> Result<Session, OpenError> {
        let session = match self.session(host, self.is_pooled()).await {
            // PgBouncer refuses startup options that it does not know.
            Err(error) if !self.is_pooled() && refuses_options(&error) => {
                let session = self.session(host, true).await;
                self.pooled.store(session.is_ok(), Ordering::Relaxed);
                session
            }
            made => made,
        }
        .map_err(|error| refused(&name(host), &error))?;
        self.check(host, &session.client).await?;
        Ok(session)
    }

    /// Connects to a host, and drives the connection.
    async fn session(&self, host: &Config, pooled: bool) -> Result<Session, tokio_postgres::Error> {
        let mut config = host.clone();
        if !pooled {
            // Options of the address come last, and so count.
            config.options(format!("{STARTUP} {}", host.get_options().unwrap_or_default()).trim_end());
        }
        let (client, mut connection) = config.connect(self.tls.connector()).await?;
        let (notify, notifications) = mpsc::unbounded_channel();
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => drop(notify.send(notification)),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return describe(&error),
                    None => return "the connection was closed".to_owned(),
                }
            }
        });
        Ok(Session { client, notifications, driver: Driver(driver) })
    }

    /// Checks the server of a new connection, which may be another server than before.
    async fn check(&self, host: &Config, client: &Client) -> Result<(), OpenError> {
        let name = name(host);
        let rows = client.query_typed(CHECK, &[]).await.map_err(|error| refused(&name, &error))?;
        let Some(row) = rows.first() else { return Err(OpenError::Unavailable(format!("{name}: no answer"))) };
        let (standby, version): (bool, i32) = (row.get(0), row.get(1));
        if version < OLDEST {
            let (major, oldest) = (version / 10_000, OLDEST / 10_000);
            return Err(OpenError::Refused(format!("{name}: unsupported version {major}: expected {oldest} or newer")));
        }
        if standby {
            return Err(OpenError::Unavailable(format!("{name}: the server is a standby; waiting for the primary")));
        }
        if row.get::<_, &str>(2) == "on" {
            return Err(OpenError::Unavailable(format!(
                "{name}: the server is in read-only mode; waiting for its end"
            )));
        }
        let off = |at: usize| row.get::<_, &str>(at) == "off";
        let volatile = volatility(off(3), off(4), off(5));
        if let Some(why) = volatile.filter(|_| !self.allow_volatile) {
            return Err(OpenError::Refused(format!("{name}: {why}")));
        }
        *self.volatile.lock().unwrap_or_else(PoisonError::into_inner) = volatile.map(str::to_owned);
        Ok(())
    }

    /// Cancels what the server does for a connection.
    pub(crate) async fn cancel(&self, token: CancelToken) {
        let host = &self.hosts[self.primary.load(Ordering::Relaxed)];
        drop(tokio::time::timeout(CANCEL, cancel(host, &token, &self.tls)).await);
    }
}

/// Why a server with these settings off can lose jobs.
const fn volatility(fsync: bool, full_page_writes: bool, synchronous_commit: bool) -> Option<&'static str> {
    match (fsync, full_page_writes, synchronous_commit) {
        (true, _, _) => Some("fsync is off, so a crash of the machine loses jobs; set it to on"),
        (_, true, _) => Some("full_page_writes is off, so a crash of the machine can damage jobs; set it to on"),
        (_, _, true) => Some("synchronous_commit is off, so a crash of the server loses jobs; set it to on"),
        _ => None,
    }
}

/// Whether a pooler refused a connection because of its startup options.
fn refuses_options(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.message().starts_with("unsupported startup parameter"))
}

/// The settings with one of the hosts. A dead peer is noticed within half a minute by an idle connection, and within
/// five seconds by one that waits for an answer.
fn host(config: &Config, at: usize) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(database) = config.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    match config.get_hosts().get(at) {
        Some(Host::Tcp(host)) => drop(one.host(host)),
        #[cfg(unix)]
        Some(Host::Unix(path)) => drop(one.host_path(path)),
        None => {}
    }
    if let Some(address) = config.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    let ports = config.get_ports();
    one.port(ports.get(at).or(ports.first()).copied().unwrap_or(5432));
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(TargetSessionAttrs::Any)
        .connect_timeout(CONNECT)
        .tcp_user_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3);
    one
}

/// The address of a host, without user and password.
fn address(host: &Config) -> String {
    let port = host.get_ports().first().copied().unwrap_or(5432);
    let name = match (host.get_hosts().first(), host.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => name.clone(),
        #[cfg(unix)]
        (Some(Host::Unix(path)), _) => return path.display().to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    format!("{name}:{port}")
}

fn name(host: &Config) -> String {
    format!("postgres at {}", address(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own_port() {
        let config: Config = "postgres://me:secret@first:1,second:2/db?options=-c%20a%3Db".parse().expect("an address");
        let hosts: Vec<Config> = (0..2).map(|at| host(&config, at)).collect();
        assert_eq!(hosts.iter().map(address).collect::<Vec<_>>(), ["first:1", "second:2"]);
        assert_eq!(hosts[1].get_password(), Some(&b"secret"[..]));
        assert_eq!((hosts[1].get_dbname(), hosts[1].get_options()), (Some("db"), Some("-c a=b")));
    }

    #[test]
    fn settings_that_can_lose_jobs_are_named() {
        assert_eq!(volatility(false, false, false), None);
        for (why, name) in [
            (volatility(true, false, false), "fsync"),
            (volatility(false, true, false), "full_page_writes"),
            (volatility(false, false, true), "synchronous_commit"),
        ] {
            assert!(why.is_some_and(|why| why.starts_with(name)), "{name}");
        }
    }
}
