//! Settings of a store.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::Clock;
use redis::{Client, ConnectionInfo, ProtocolVersion};

use crate::{fail::OpenError, repair};

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
    pub(crate) allow_volatile: bool,
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
    /// [`RedisStore::volatile`](crate::RedisStore::volatile) then returns the reason. Defaults to false.
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

    /// The beginning of all keys.
    pub(crate) fn namespace(&self) -> Result<String, OpenError> {
        let prefix = &self.prefix;
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if prefix.is_empty() || !prefix.chars().all(fits) {
            let why = format!("invalid prefix {prefix:?}: expected characters from A-Z a-z 0-9 . _ -");
            return Err(OpenError::Refused(why));
        }
        Ok(format!("{{{prefix}}}:"))
    }

    /// A client for the server. Does not connect.
    pub(crate) fn client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
        // With Nagle's algorithm a small command would wait for the answer to the command before.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        self.tls_client(info.set_tcp_settings(tcp).set_redis_settings(redis))
    }

    #[cfg(feature = "tls")]
    fn tls_client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
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
    fn tls_client(&self, info: ConnectionInfo) -> Result<Client, OpenError> {
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
