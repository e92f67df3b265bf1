//! A server: where it is, and whether it is one that jobs can be trusted to. Must not know jobs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::StoreError;
use redis::{Client, InfoDict, RedisError, Value, aio::MultiplexedConnection};
use uuid::Uuid;

use crate::{
    fail::{Fail, reason},
    options::OpenError,
};

/// The format of what is stored; a server that holds a later one is refused.
const FORMAT: u64 = 1;

pub(crate) struct Server {
    pub(crate) client: Client,
    /// As it may be shown: without user and password.
    pub(crate) address: String,
    pub(crate) namespace: String,
    pub(crate) allow_volatile: bool,
    /// Between two looks at its settings.
    rest: Duration,
    seen: Mutex<Seen>,
}

/// As of the last look.
#[derive(Default)]
struct Seen {
    /// What can be lost.
    volatile: Option<String>,
    at: Option<Instant>,
    /// What marks the data under the namespace: it goes with them.
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
            // No waiting leads it elsewhere: redirections are not followed.
            _ if matches!(error.code(), Some("MOVED" | "ASK")) => OpenError::Refused(text),
            _ if error.kind() == redis::ErrorKind::InvalidClientConfig => OpenError::Refused(text),
            _ => OpenError::Unavailable(text),
        }
    }

    /// Looks at a fresh connection's server, each time: it may be another one than before.
    pub(crate) async fn check(&self, conn: &mut MultiplexedConnection) -> Result<(), OpenError> {
        let lost = self.ask(conn).await?;
        if let Some(lost) = lost.as_ref().filter(|_| !self.allow_volatile) {
            return Err(OpenError::Refused(format!("{}: {lost}", self.address)));
        }
        self.saw(lost);
        let (format, mark) = self.marks(conn).await.map_err(|error| self.refused(&error))?;
        if let Some(found) = format.filter(|format| *format > FORMAT) {
            return Err(OpenError::Newer { server: self.address.clone(), found, known: FORMAT });
        }
        // Another one than before is told of by the next look.
        let mut seen = self.seen();
        seen.mark = seen.mark.take().or(mark);
        Ok(())
    }

    /// Looks whether the data is still there, and now and then at the settings: nothing else tells a process whose
    /// connection stays. What has changed is told once, as an error of whoever asks.
    pub(crate) async fn look_again(&self, mut conn: MultiplexedConnection) -> Result<(), StoreError> {
        let failed = |error: RedisError| Fail::from(error).into_error(&self.address);
        let (_, mark) = self.marks(&mut conn).await.map_err(failed)?;
        let due = {
            let mut seen = self.seen();
            let before = if mark.is_some() { std::mem::replace(&mut seen.mark, mark.clone()) } else { None };
            if before.is_some() && before != mark {
                let (address, namespace) = (&self.address, &self.namespace);
                return Err(StoreError::Corrupt(format!(
                    "{address}: the mark of {namespace} is not the one that was there: somebody deleted what was stored \
                     (FLUSHALL, FLUSHDB, DEL), or this is another server than before; jobs that were accepted are lost"
                )));
            }
            seen.at.is_none_or(|at| at.elapsed() >= self.rest)
        };
        if !due {
            return Ok(());
        }
        // A server that cannot be used now is told of by each call.
        let Ok(lost) = self.ask(&mut conn).await else { return Ok(()) };
        let before = self.saw(lost.clone());
        match lost {
            Some(lost) if before.as_ref() != Some(&lost) => {
                Err(StoreError::Backend { source: format!("{}: {lost}", self.address).into() })
            }
            _ => Ok(()),
        }
    }

    /// Notes what can be lost; what it was before.
    fn saw(&self, lost: Option<String>) -> Option<String> {
        let mut seen = self.seen();
        seen.at = Some(Instant::now());
        std::mem::replace(&mut seen.volatile, lost)
    }

    /// What it can lose, also as far as it may not be asked.
    async fn ask(&self, conn: &mut MultiplexedConnection) -> Result<Option<String>, OpenError> {
        match redis::cmd("INFO").query_async::<InfoDict>(conn).await {
            Ok(info) => self.look(&info),
            Err(error) if error.code() == Some("NOPERM") => {
                Ok(Some("its user may not ask INFO, so nobody knows what it keeps".to_owned()))
            }
            Err(error) => Err(self.refused(&error)),
        }
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

    /// The format of the data, and what marks it: made if there is none, and there is memory for it.
    async fn marks(&self, conn: &mut MultiplexedConnection) -> Result<(Option<u64>, Option<String>), RedisError> {
        let meta = format!("{}meta", self.namespace);
        let mut ask = redis::cmd("HMGET");
        ask.arg(&meta).arg("format").arg("mark");
        let found: (Option<u64>, Option<String>) = ask.query_async(conn).await?;
        if found.0.is_some() && found.1.is_some() {
            return Ok(found);
        }
        for (field, value) in [("format", FORMAT.to_string()), ("mark", Uuid::new_v4().to_string())] {
            // Whoever else made it before, it is theirs.
            let made = redis::cmd("HSETNX").arg(&meta).arg(field).arg(value).query_async::<Value>(conn).await;
            if made.is_err() {
                return Ok(found);
            }
        }
        ask.query_async(conn).await
    }
}
