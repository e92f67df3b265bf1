//! Settings of a store, and errors of opening one.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{Clock, StoreError};
use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use crate::{repair, server::Server, store::RedisStore};

/// The first line of a certificate in PEM.
#[cfg(feature = "tls")]
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Settings with which to open a store.
///
/// ```no_run
/// # async fn open() -> Result<(), async_endpoints_redis::OpenError> {
/// use async_endpoints_redis::Options;
/// let store = Options::new().prefix("billing").open("redis://user:secret@redis.internal:6379/0").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Options {
    prefix: String,
    allow_volatile: bool,
    root_certificate: Option<Vec<u8>>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) rest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { prefix: "ae".to_owned(), allow_volatile: false, root_certificate: None, clock: None, rest: repair::REST }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The beginning of all keys: `{ae}:job:…` for `ae`. Defaults to `ae`. Services that share a server but not their jobs
    /// need different prefixes. Allowed are ASCII letters, digits, `.`, `_` and `-`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Accepts a server that can lose jobs, because it has no append-only file or an eviction policy.
    /// [`RedisStore::volatile`] then returns the reason. Defaults to false.
    #[must_use]
    pub const fn allow_volatile(mut self, allow: bool) -> Self {
        self.allow_volatile = allow;
        self
    }

    /// Trusts this root certificate (PEM) in place of the system's, for `rediss://` with a private authority. Needs the
    /// feature `tls`.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Replaces the server's clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The rest between two repairs of everything, and between two checks of the server's settings, for tests.
    #[doc(hidden)]
    #[must_use]
    pub const fn check_every(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// Opens a store at `redis://[user:password@]host[:port][/database]`, `rediss://…` over TLS, or
    /// `redis+unix:///path/to/socket`. Connects once. Later the store reconnects by itself.
    ///
    /// # Errors
    /// See [`OpenError`]. No error shows a password.
    pub async fn open(self, url: impl AsRef<str>) -> Result<RedisStore, OpenError> {
        let info = url.as_ref().into_connection_info();
        // The driver's error may repeat the address, which may hold a password.
        let info = info.map_err(|_| {
            OpenError::Refused(
                "invalid address of a Redis server: expected redis://HOST:PORT/DATABASE or rediss://…".to_owned(),
            )
        })?;
        self.open_with(info).await
    }

    /// Opens a store with the driver's own connection settings, which cover more than an address. The type belongs to the
    /// version of the crate `redis` that this crate depends on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(self, info: ConnectionInfo) -> Result<RedisStore, OpenError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if self.prefix.is_empty() || !self.prefix.chars().all(fits) {
            return Err(OpenError::Refused(format!(
                "invalid prefix {:?}: expected characters from A-Z a-z 0-9 . _ -",
                self.prefix
            )));
        }
        // With Nagle's algorithm a small command would wait for the answer to the command before.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let client = self.client(info.set_tcp_settings(tcp).set_redis_settings(redis))?;
        let server = Server::new(client, format!("{{{}}}:", self.prefix), self.allow_volatile, self.rest);
        RedisStore::start(server, &self).await
    }

    #[cfg(feature = "tls")]
    fn client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
        // Fails if the program chose a provider before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let opened = match &self.root_certificate {
            Some(root) if !root.windows(BEGIN.len()).any(|part| part == BEGIN) => {
                return Err(OpenError::Refused("invalid root certificate: expected a CERTIFICATE in PEM".to_owned()));
            }
            Some(root) => {
                Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert: Some(root.clone()) })
            }
            None => Client::open(info),
        };
        opened.map_err(|error| OpenError::Refused(error.to_string()))
    }

    #[cfg(not(feature = "tls"))]
    fn client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
        if self.root_certificate.is_some() || matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            return Err(OpenError::Refused("TLS is not built in: build with the feature `tls`".to_owned()));
        }
        Client::open(info).map_err(|error| OpenError::Refused(error.to_string()))
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("prefix", &self.prefix)
            .field("allow_volatile", &self.allow_volatile)
            .finish_non_exhaustive()
    }
}

/// The error of a store that cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The server cannot be used now: unreachable, loading its data, or a replica. Opening may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The address, the user, the options or the server's settings have to change.
    #[error("{0}")]
    Refused(String),
    /// The data has the format of a later version of this crate.
    #[error("{server}: unsupported data format {found}: expected at most {known}; use a newer program")]
    Newer {
        /// The server's address.
        server: String,
        /// The format found.
        found: u64,
        /// The latest format that this program reads.
        known: u64,
    },
}

impl OpenError {
    /// Whether opening with the same options may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unavailable(why) => Self::Unavailable(why),
            other => Self::Backend { source: other.into() },
        }
    }
}
