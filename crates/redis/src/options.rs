//! How to open a store, and why one could not be opened.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{Clock, StoreError};
use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use crate::{repair, server::Server, store::RedisStore};

/// How a certificate begins in PEM.
#[cfg(feature = "tls")]
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How to open a store.
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

    /// What all keys begin with, `ae` by default: `{ae}:job:…`. Services that share a server and not their jobs need
    /// different ones. Letters, digits, `.`, `_` and `-`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Accepts a server that can lose jobs: one without an append-only file, or with an eviction policy. What can be lost is
    /// told by [`RedisStore::volatile`].
    #[must_use]
    pub const fn allow_volatile(mut self, allow: bool) -> Self {
        self.allow_volatile = allow;
        self
    }

    /// Trusts this certificate (PEM) in place of the system's, for `rediss://` with an authority of one's own. Needs the
    /// feature `tls`.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// A clock in place of the server's: for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// How long the store waits after it looked at everything for what disagrees, and between two looks at the server's
    /// settings: for tests.
    #[doc(hidden)]
    #[must_use]
    pub const fn check_every(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// Opens a store: `redis://[user:password@]host[:port][/database]`, `rediss://…` over TLS, or
    /// `redis+unix:///path/to/socket`. Connects once, and says why if that fails; from then on it reconnects by itself.
    pub async fn open(self, url: impl AsRef<str>) -> Result<RedisStore, OpenError> {
        let info = url.as_ref().into_connection_info();
        // The driver's words may repeat the address, and that may hold a password.
        let info = info.map_err(|_| {
            OpenError::Refused(
                "this is no address of a Redis server; set redis://HOST:PORT/DATABASE or rediss://…".to_owned(),
            )
        })?;
        self.open_with(info).await
    }

    /// The same with a connection described in the driver's own words: whatever it can, and an address cannot say. Follows
    /// the version of the crate `redis` that this one depends on.
    pub async fn open_with(self, info: ConnectionInfo) -> Result<RedisStore, OpenError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if self.prefix.is_empty() || !self.prefix.chars().all(fits) {
            return Err(OpenError::Refused(format!(
                "{:?} is no prefix; letters, digits, '.', '_' and '-' are",
                self.prefix
            )));
        }
        // Without it, a small command waits for the answer to the one before. The protocol's second version is enough.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let client = self.client(info.set_tcp_settings(tcp).set_redis_settings(redis))?;
        let server = Server::new(client, format!("{{{}}}:", self.prefix), self.allow_volatile, self.rest);
        RedisStore::start(server, &self).await
    }

    #[cfg(feature = "tls")]
    fn client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
        // Somebody else's choice stands.
        drop(rustls::crypto::ring::default_provider().install_default());
        let opened = match &self.root_certificate {
            Some(root) if !root.windows(BEGIN.len()).any(|part| part == BEGIN) => {
                return Err(OpenError::Refused("the root certificate is none: its PEM has no CERTIFICATE".to_owned()));
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

/// Why a store could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// Not now: it cannot be reached, is loading its data, is a replica.
    #[error("{0}")]
    Unavailable(String),
    /// Not like this: the address, the user, or the server's settings have to change.
    #[error("{0}")]
    Refused(String),
    /// A later version of this store wrote to it.
    #[error(
        "{server}: jobs are stored in format {found}, and this program knows formats up to {known}: use a newer program"
    )]
    Newer {
        /// Which server.
        server: String,
        /// The format of its jobs.
        found: u64,
        /// The latest format known here.
        known: u64,
    },
}

impl OpenError {
    /// Whether the same may succeed later, with nothing changed here.
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
