//! A server: where it is, and whether it is one that jobs can be trusted to. Must not know jobs.

use std::sync::Mutex;

use redis::{Client, InfoDict, RedisError, Value, aio::MultiplexedConnection};

use crate::{fail::reason, options::OpenError};

/// The format of what is stored; a server that holds a later one is refused.
const FORMAT: u64 = 1;

pub(crate) struct Server {
    pub(crate) client: Client,
    /// As it may be shown: without user and password.
    pub(crate) address: String,
    pub(crate) namespace: String,
    pub(crate) allow_volatile: bool,
    /// What can be lost, as of the last look.
    volatile: Mutex<Option<String>>,
}

impl Server {
    pub(crate) fn new(client: Client, namespace: String, allow_volatile: bool) -> Self {
        let address = format!("redis at {}", client.get_connection_info().addr());
        Self { client, address, namespace, allow_volatile, volatile: Mutex::default() }
    }

    pub(crate) fn volatile(&self) -> Option<String> {
        self.volatile.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Why it let nobody in: for good, if another user or password is needed.
    pub(crate) fn refused(&self, error: &RedisError) -> OpenError {
        let said = error.to_string();
        let why = match reason(error) {
            // The driver reads certificates while it connects, and calls what it finds a broken connection.
            _ if said.contains("certificate") => return OpenError::Refused(format!("{}: {said}", self.address)),
            Some(_) if error.is_io_error() && !error.is_timeout() => Some("it cannot be reached"),
            why => why,
        };
        let text = match why {
            Some(why) => format!("{}: {why} ({error})", self.address),
            None => format!("{}: {error}", self.address),
        };
        match why {
            Some("it does not accept the user or the password") => OpenError::Refused(text),
            _ if error.kind() == redis::ErrorKind::InvalidClientConfig => OpenError::Refused(text),
            _ => OpenError::Unavailable(text),
        }
    }

    /// Looks at a fresh connection's server, each time: it may be another one than before.
    pub(crate) async fn check(&self, conn: &mut MultiplexedConnection) -> Result<(), OpenError> {
        let info = match redis::cmd("INFO").query_async::<InfoDict>(conn).await {
            Ok(info) => Some(info),
            Err(error) if error.code() == Some("NOPERM") => None,
            Err(error) => return Err(self.refused(&error)),
        };
        let lost = match &info {
            Some(info) => self.look(info)?,
            None => Some("its user may not ask INFO, so nobody knows what it keeps".to_owned()),
        };
        if let Some(lost) = lost.as_ref().filter(|_| !self.allow_volatile) {
            return Err(OpenError::Refused(format!("{}: {lost}", self.address)));
        }
        *self.volatile.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = lost;
        self.check_format(conn).await
    }

    /// What it can lose; an error if it cannot be used at all, or not now.
    fn look(&self, info: &InfoDict) -> Result<Option<String>, OpenError> {
        let text = |key: &str| info.get::<String>(key).unwrap_or_default();
        let version = text("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < 7) {
            return Err(OpenError::Refused(format!("{}: version {version}, and 7.0 or newer is needed", self.address)));
        }
        if text("role") == "slave" {
            return Err(OpenError::Unavailable(format!("{}: it is a replica; waiting for the primary", self.address)));
        }
        if text("loading") == "1" {
            return Err(OpenError::Unavailable(format!("{}: it is loading its data", self.address)));
        }
        let policy = text("maxmemory_policy");
        Ok(match policy.as_str() {
            _ if text("aof_enabled") != "1" => {
                Some("it keeps no append-only file, so a restart loses jobs; set appendonly yes".to_owned())
            }
            "noeviction" => None,
            other => Some(format!("maxmemory-policy is {other}, so jobs may be evicted; set it to noeviction")),
        })
    }

    async fn check_format(&self, conn: &mut MultiplexedConnection) -> Result<(), OpenError> {
        let meta = format!("{}meta", self.namespace);
        let mut command = redis::cmd("HGET");
        let found: Option<u64> =
            command.arg(&meta).arg("format").query_async(conn).await.map_err(|error| self.refused(&error))?;
        match found {
            Some(format) if format > FORMAT => {
                Err(OpenError::Newer { server: self.address.clone(), found: format, known: FORMAT })
            }
            Some(_) => Ok(()),
            None => {
                // Without memory for it, the next connection sets it.
                let mut command = redis::cmd("HSETNX");
                let _: Result<Value, _> = command.arg(&meta).arg("format").arg(FORMAT).query_async(conn).await;
                Ok(())
            }
        }
    }
}
