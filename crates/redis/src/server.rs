//! Checks of a server: version, role, durability, eviction, format. Knows nothing of jobs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::{StoreError, store::StoreHealth};
use redis::{Client, ErrorKind, InfoDict, RedisError, Value, aio::MultiplexedConnection};
use uuid::Uuid;

use crate::fail::{Fail, OpenError, is_denied, reason};

/// The format of the stored data. Data of a later format is refused.
const FORMAT: u64 = 1;

/// Percentage of `maxmemory` from which on the server is degraded. At 100 %, submissions are refused.
const FULL_PERCENT: u64 = 90;

pub(crate) struct Server {
    pub(crate) client: Client,
    /// The address without user and password, for error texts.
    pub(crate) address: String,
    pub(crate) namespace: String,
    pub(crate) allow_volatile: bool,
    /// The interval between two checks of the settings.
    rest: Duration,
    seen: Mutex<Seen>,
}

/// The result of the last check.
#[derive(Default)]
struct Seen {
    /// Why the server can lose jobs.
    volatile: Option<String>,
    at: Option<Instant>,
    /// A random value stored with the data. Another value means that the data was deleted.
    mark: Option<String>,
}

impl Server {
    pub(crate) fn new(client: Client, namespace: String, allow_volatile: bool, rest: Duration) -> Self {
        let address = format!("redis at {}", client.get_connection_info().addr());
        Self { client, address, namespace, allow_volatile, rest, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn volatile(&self) -> Option<String> {
        self.seen().volatile.clone()
    }

    /// The error of a server that cannot be used. Permanent if the user, the password or the address has to change.
    pub(crate) fn refused(&self, error: &RedisError) -> OpenError {
        let detail = error.to_string();
        let why = match reason(error) {
            // The driver reports an invalid certificate as a broken connection.
            _ if detail.contains("certificate") => return OpenError::Refused(format!("{}: {detail}", self.address)),
            Some(_) if error.is_io_error() && !error.is_timeout() => Some("the server cannot be reached"),
            why => why,
        };
        let text = match why {
            Some(why) => format!("{}: {why} ({error})", self.address),
            None => format!("{}: {error}", self.address),
        };
        // Redirections are not followed, so waiting does not help against MOVED and ASK.
        let permanent_kind = matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig);
        let no_database = detail.contains("refused to switch database");
        if permanent_kind
            || no_database
            || is_denied(error)
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "MOVED" | "ASK"))
        {
            OpenError::Refused(text)
        } else {
            OpenError::Unavailable(text)
        }
    }

    /// Checks the server of a new connection, which may be another server than before.
    pub(crate) async fn check(&self, conn: &mut MultiplexedConnection) -> Result<(), OpenError> {
        let volatile = self.volatility(conn).await?;
        if let Some(why) = volatile.as_ref().filter(|_| !self.allow_volatile) {
            return Err(OpenError::Refused(format!("{}: {why}", self.address)));
        }
        self.note(volatile);
        let (format, mark) = self.marks(conn).await.map_err(|error| self.refused(&error))?;
        if let Some(found) = format.filter(|format| *format > FORMAT) {
            return Err(OpenError::Newer { server: self.address.clone(), found, known: FORMAT });
        }
        // `recheck` reports a mark that changed.
        let mut seen = self.seen();
        seen.mark = seen.mark.take().or(mark);
        Ok(())
    }

    /// Checks whether the data is still there, and at intervals the settings, while a connection lasts. Returns an error once
    /// for each change to the worse.
    pub(crate) async fn recheck(&self, mut conn: MultiplexedConnection) -> Result<(), StoreError> {
        let failed = |error: RedisError| Fail::from(error).into_error(&self.address);
        let (_, mark) = self.marks(&mut conn).await.map_err(failed)?;
        let due = {
            let mut seen = self.seen();
            let before = if mark.is_some() { std::mem::replace(&mut seen.mark, mark.clone()) } else { None };
            if before.is_some() && before != mark {
                let (address, namespace) = (&self.address, &self.namespace);
                return Err(StoreError::Corrupt(format!(
                    "{address}: the data of {namespace} was deleted (FLUSHALL, FLUSHDB, DEL), or this is another server \
                     than before; jobs that were accepted are lost"
                )));
            }
            seen.at.is_none_or(|at| at.elapsed() >= self.rest)
        };
        if !due {
            return Ok(());
        }
        // Every call returns the error of a server that cannot be used now.
        let Ok(volatile) = self.volatility(&mut conn).await else { return Ok(()) };
        let before = self.note(volatile.clone());
        match volatile {
            Some(why) if before.as_ref() != Some(&why) => {
                Err(StoreError::Backend { source: format!("{}: {why}", self.address).into() })
            }
            _ => Ok(()),
        }
    }

    /// Replaces the result of the last check, and returns it.
    fn note(&self, volatile: Option<String>) -> Option<String> {
        let mut seen = self.seen();
        seen.at = Some(Instant::now());
        std::mem::replace(&mut seen.volatile, volatile)
    }

    /// Why the server can lose jobs; `None` if it keeps them.
    async fn volatility(&self, conn: &mut MultiplexedConnection) -> Result<Option<String>, OpenError> {
        match redis::cmd("INFO").query_async::<InfoDict>(conn).await {
            Ok(info) => self.judge(&info),
            Err(error) if error.code() == Some("NOPERM") => {
                Ok(Some("the user may not run INFO, so its durability is unknown".to_owned()))
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Reports the condition of the server.
    pub(crate) async fn health(&self, mut conn: MultiplexedConnection) -> Result<StoreHealth, StoreError> {
        let info = redis::cmd("INFO").query_async::<InfoDict>(&mut conn).await;
        match info {
            Ok(info) => self.health_of(&info),
            Err(error) if error.code() == Some("NOPERM") => {
                let unknown = || "the user may not run INFO, so the server's condition is unknown".to_owned();
                Ok(StoreHealth::default().degraded_if(true, unknown))
            }
            Err(error) => Err(Fail::from(error).into_error(&self.address)),
        }
    }

    fn health_of(&self, info: &InfoDict) -> Result<StoreHealth, StoreError> {
        let volatile = self.judge(info).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let text = |key: &str| info.get::<String>(key).unwrap_or_default();
        let number = |key: &str| info.get::<u64>(key).unwrap_or_default();
        let (used, max) = (number("used_memory"), number("maxmemory"));
        let full =
            || format!("the server uses {used} of {max} bytes of maxmemory; submissions are refused at the limit");
        let unwritten = || "the server cannot write its append-only file: check its disk".to_owned();
        let health = StoreHealth::default()
            .with("version", text("redis_version"))
            .with("role", text("role"))
            .with("append_only_file", text("aof_enabled") == "1")
            .with("maxmemory_policy", text("maxmemory_policy"))
            .with("used_memory_bytes", used)
            .with("maxmemory_bytes", max)
            .degraded_if(max > 0 && used.saturating_mul(100) >= max.saturating_mul(FULL_PERCENT), full)
            .degraded_if(text("aof_last_write_status") == "err", unwritten);
        Ok(match volatile {
            Some(why) => health.degraded_if(true, || why),
            None => health,
        })
    }

    /// Judges the answer of INFO like [`volatility`](Self::volatility); fails if the server cannot be used, or not now.
    fn judge(&self, info: &InfoDict) -> Result<Option<String>, OpenError> {
        let text = |key: &str| info.get::<String>(key).unwrap_or_default();
        let version = text("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < 7) {
            return Err(OpenError::Refused(format!(
                "{}: unsupported version {version}: expected 7.0 or newer",
                self.address
            )));
        }
        if text("role") == "slave" {
            return Err(OpenError::Unavailable(format!(
                "{}: the server is a replica; waiting for the primary",
                self.address
            )));
        }
        if text("loading") == "1" {
            return Err(OpenError::Unavailable(format!("{}: the server is loading its data", self.address)));
        }
        let policy = text("maxmemory_policy");
        Ok(match policy.as_str() {
            _ if text("aof_enabled") != "1" => {
                Some("the server keeps no append-only file, so a restart loses jobs; set appendonly yes".to_owned())
            }
            "noeviction" => None,
            other => Some(format!("maxmemory-policy is {other}, so jobs may be evicted; set it to noeviction")),
        })
    }

    /// Reads format and mark of the data. Writes them to an empty namespace, if the server has memory.
    async fn marks(&self, conn: &mut MultiplexedConnection) -> Result<(Option<u64>, Option<String>), RedisError> {
        let meta = format!("{}meta", self.namespace);
        let mut read = redis::cmd("HMGET");
        read.arg(&meta).arg("format").arg("mark");
        let found: (Option<u64>, Option<String>) = read.query_async(conn).await?;
        if found.0.is_some() && found.1.is_some() {
            return Ok(found);
        }
        for (field, value) in [("format", FORMAT.to_string()), ("mark", Uuid::new_v4().to_string())] {
            // Another process may have written it since.
            let written = redis::cmd("HSETNX").arg(&meta).arg(field).arg(value).query_async::<Value>(conn).await;
            if written.is_err() {
                return Ok(found);
            }
        }
        read.query_async(conn).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reasons of a server whose INFO has the fields of a good one, and these.
    fn reasons(fields: &str) -> Vec<String> {
        let client = Client::open("redis://127.0.0.1:6379").expect("an address");
        let server = Server::new(client, "test:".to_owned(), true, Duration::ZERO);
        let good = "redis_version:7.2.0\r\nrole:master\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let info = InfoDict::new(&format!("{fields}{good}"));
        server.health_of(&info).expect("a usable server").degraded
    }

    #[test]
    fn thresholds_degrade_the_server() {
        let memory = |used: u64, max: u64| reasons(&format!("used_memory:{used}\r\nmaxmemory:{max}\r\n")).len();
        assert_eq!((memory(899, 1000), memory(900, 1000), memory(u64::MAX, 0)), (0, 1, 0));
        assert!(reasons("aof_last_write_status:err\r\n")[0].contains("check its disk"));
        assert_eq!(reasons("aof_last_write_status:ok\r\n"), [] as [String; 0]);
    }
}
