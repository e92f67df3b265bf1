//! A server of a store: Redis or PostgreSQL.

use std::{io, sync::Arc};

use async_endpoints_testkit::server::{PostgresServer, RedisServer};

use crate::StoreKind;

pub(crate) enum Server {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    pub(crate) fn start(store: StoreKind) -> Self {
        match store {
            // A killed Redis keeps its acknowledged writes only if it syncs each of them.
            StoreKind::Sqlite | StoreKind::Redis => Self::Redis(RedisServer::with(&[("appendfsync", "always")])),
            StoreKind::RedisFailover => Self::Redis(RedisServer::start()),
            StoreKind::Postgres | StoreKind::PostgresFailover => Self::Postgres(PostgresServer::start()),
        }
    }

    /// Starts a standby of this server. Redis replicates asynchronously. PostgreSQL acknowledges a commit when the standby
    /// has it.
    pub(crate) fn standby(&self) -> Self {
        match self {
            Self::Redis(primary) => Self::Redis(RedisServer::replica_of(primary)),
            Self::Postgres(primary) => {
                let standby = PostgresServer::standby_of(primary);
                // Set after the copy was made: a promoted standby has no standby of its own at first, and must not wait.
                configure(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'");
                standby.catch_up(primary);
                Self::Postgres(standby)
            }
        }
    }

    /// Makes this standby a primary.
    pub(crate) fn promote(&self) {
        match self {
            Self::Redis(standby) => standby.promote(),
            Self::Postgres(standby) => standby.promote(),
        }
    }

    /// Returns a standby of `primary` in place of the former primary.
    pub(crate) fn follow(former: Arc<Self>, primary: &Self) -> Arc<Self> {
        match (&*former, primary) {
            (Self::Redis(former_server), Self::Redis(primary)) => {
                former_server.follow(primary);
                former
            }
            _ => {
                former.kill();
                Arc::new(primary.standby())
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Redis(server) => server.port(),
            Self::Postgres(server) => server.port(),
        }
    }

    /// The store's URL with another port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        match self {
            Self::Redis(_) => format!("redis://127.0.0.1:{port}"),
            Self::Postgres(_) => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
        }
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
        }
    }

    pub(crate) fn restart(&self) {
        match self {
            Self::Redis(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }

    pub(crate) fn pause(&self) {
        match self {
            Self::Redis(server) => server.pause(),
            Self::Postgres(server) => server.pause(),
        }
    }

    pub(crate) fn resume(&self) {
        match self {
            Self::Redis(server) => server.resume(),
            Self::Postgres(server) => server.resume(),
        }
    }

    /// Lets the server refuse all writes, or accept them again: Redis is out of memory, PostgreSQL is read-only.
    pub(crate) fn refuse_writes(&self, refuse: bool) -> io::Result<()> {
        match self {
            Self::Redis(_) => self.command(if refuse { "CONFIG SET maxmemory 1" } else { "CONFIG SET maxmemory 0" }),
            Self::Postgres(server) => {
                let setting = if refuse { "on" } else { "off" };
                configure(server, &format!("ALTER SYSTEM SET default_transaction_read_only = {setting}"));
                Ok(())
            }
        }
    }

    /// Runs a command of `redis-cli`, or SQL. Fails unless the server carries it out.
    pub(crate) fn command(&self, command: &str) -> io::Result<()> {
        let (answer, is_done) = match self {
            Self::Redis(server) => {
                let answer = server.cli(&command.split(' ').collect::<Vec<_>>());
                let is_done = answer == "OK" || answer.bytes().all(|byte| byte.is_ascii_digit());
                (answer, is_done)
            }
            Self::Postgres(server) => {
                let answer = server.sql(command);
                let is_done = !answer.contains("ERROR") && !answer.starts_with("psql:");
                (answer, is_done)
            }
        };
        if is_done { Ok(()) } else { Err(io::Error::other(format!("{command}: {answer}"))) }
    }
}

/// Changes a setting of a PostgreSQL server and waits until new transactions have it.
fn configure(server: &PostgresServer, sql: &str) {
    assert_eq!(server.sql(sql), "ALTER SYSTEM");
    assert_eq!(server.sql("SELECT pg_reload_conf()"), "t");
}
