//! Real servers for tests: Redis, PostgreSQL, PgBouncer and SMTP. Each server has its own process, temporary folder and port of
//! 127.0.0.1, and ends with its handle. If a program is missing, the test panics with the name of its package; no test is
//! skipped.
//!
//! Must not depend on stores or drivers: commands go through the server's own programs.

mod folder;
mod port;
mod postgres;
mod redis;
mod smtp;
mod tls;

pub use port::free as free_port;
pub use postgres::{PgBouncer, PostgresServer, psql};
pub use redis::RedisServer;
pub use smtp::{SmtpServer, SmtpSettings, SmtpTls};
pub use tls::certify;

use std::{io, time::Duration};

/// Limit for starts, restarts and replication. Only a failing test waits for so long.
const TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

fn missing<T>(program: &str, package: &str, error: &io::Error) -> T {
    panic!("cannot run {program}: {error}; install the Debian package {package}")
}
