//! Settings of a store.

use tokio_postgres::config::{ChannelBinding, Config, SslMode, TargetSessionAttrs};

use crate::{
    fail::OpenError,
    link::Sizes,
    server::Server,
    tls::{Tls, Verify},
};

/// The most connections of one kind.
const MAX_CONNECTIONS: usize = 64;
/// PostgreSQL cuts longer names off. Names of the store's channel begin with the schema.
const MAX_SCHEMA: usize = 40;

/// Settings with which to open a store.
///
/// ```no_run
/// use async_endpoints_postgres::Options;
/// let options = Options::new().schema("billing_jobs").work_connections(8);
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) schema: String,
    submit: usize,
    work: usize,
    application_name: String,
    allow_volatile: bool,
    root_certificate: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "ae".to_owned(),
            submit: 2,
            work: 4,
            application_name: "async-endpoints".to_owned(),
            allow_volatile: false,
            root_certificate: None,
        }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The schema of all tables and functions. Defaults to `ae`. Services that share a database but not their jobs need
    /// different schemas. Allowed are at most 40 characters from `a-z`, `0-9` and `_`, beginning with a letter.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// The number of connections that accept jobs, 1 to 64. Defaults to 2. Concurrent submissions share them.
    /// With one, a submission that waits for the key of an open transaction holds up the others.
    #[must_use]
    pub const fn submit_connections(mut self, number: usize) -> Self {
        self.submit = number;
        self
    }

    /// The number of connections that claim and settle jobs and answer reads, 1 to 64. Defaults to 4. The store has three
    /// further connections: for renewals, and for receiving and for sending hints.
    #[must_use]
    pub const fn work_connections(mut self, number: usize) -> Self {
        self.work = number;
        self
    }

    /// The name of the connections in `pg_stat_activity`. Defaults to `async-endpoints`. A URL's own `application_name` is
    /// used first.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// Accepts a server that can lose jobs, because `fsync`, `full_page_writes` or `synchronous_commit` is off. Defaults to
    /// false.
    #[must_use]
    pub const fn allow_volatile(mut self, allow: bool) -> Self {
        self.allow_volatile = allow;
        self
    }

    /// Trusts this root certificate (PEM) in place of the system's, like `sslrootcert` of a URL. Needs the feature `tls`.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// The numbers of connections.
    pub(crate) fn sizes(&self) -> Result<Sizes, OpenError> {
        for (name, number) in [("submit_connections", self.submit), ("work_connections", self.work)] {
            if !(1..=MAX_CONNECTIONS).contains(&number) {
                return Err(refused(format!("invalid {name} {number}: expected 1 to {MAX_CONNECTIONS}")));
            }
        }
        Ok(Sizes { submit: self.submit, work: self.work })
    }

    /// The server at `postgres://…` or `postgresql://…`. Does not connect.
    pub(crate) fn server(&self, url: &str) -> Result<Server, OpenError> {
        let Url { config, verify, root_certificate } = Url::parse(url)?;
        self.server_with(config, verify, root_certificate)
    }

    /// The server of the driver's own settings. Does not connect.
    pub(crate) fn server_of(&self, config: Config) -> Result<Server, OpenError> {
        self.server_with(config, Verify::Unset, None)
    }

    fn server_with(&self, mut config: Config, verify: Verify, root: Option<Vec<u8>>) -> Result<Server, OpenError> {
        self.check_schema()?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refused("invalid address of a PostgreSQL server: expected a host".to_owned()));
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            let why = "invalid target_session_attrs read-only: expected read-write or any, since the store writes";
            return Err(refused(why.to_owned()));
        }
        if config.get_channel_binding() == ChannelBinding::Require {
            return Err(refused("invalid channel_binding require: channel binding is not supported".to_owned()));
        }
        if config.get_application_name().is_none() {
            config.application_name(&self.application_name);
        }
        let root = self.root_certificate.clone().or(root);
        let encrypts = config.get_ssl_mode() != SslMode::Disable;
        if root.is_some() && !encrypts {
            return Err(refused("invalid sslmode disable: a root certificate is set, which needs TLS".to_owned()));
        }
        let tls = Tls::new(config.get_ssl_mode(), verify, root.as_deref()).map_err(refused)?;
        Ok(Server::new(&config, tls, self.allow_volatile))
    }

    fn check_schema(&self) -> Result<(), OpenError> {
        let schema = &self.schema;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = schema.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || !schema.chars().all(fits) || schema.len() > MAX_SCHEMA || schema.starts_with("pg_") {
            return Err(refused(format!(
                "invalid schema {schema:?}: expected a letter from a-z and at most {} characters from a-z 0-9 _, and not \
                 pg_ at the beginning",
                MAX_SCHEMA - 1
            )));
        }
        Ok(())
    }
}

const fn refused(why: String) -> OpenError {
    OpenError::Refused(why)
}

/// The parts of an address. The driver does not know all values of `sslmode`.
struct Url {
    config: Config,
    verify: Verify,
    root_certificate: Option<Vec<u8>>,
}

impl Url {
    /// Parses a URL. No error shows a password.
    fn parse(url: &str) -> Result<Self, OpenError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            let why = "invalid address of a PostgreSQL server: expected postgres://USER@HOST:PORT/DATABASE";
            return Err(refused(why.to_owned()));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut verify, mut root_certificate, mut rest) = (Verify::Unset, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sslmode", "verify-ca") => verify = Verify::Authority,
                ("sslmode", "verify-full") => verify = Verify::Full,
                ("sslrootcert", "system") => verify = Verify::Full,
                ("sslrootcert", path) => {
                    let path = percent_decoded(path);
                    let read = std::fs::read(&path);
                    root_certificate =
                        Some(read.map_err(|error| refused(format!("invalid sslrootcert {path:?}: {error}")))?);
                }
                _ => rest.push(pair),
            }
        }
        if verify != Verify::Unset {
            rest.push("sslmode=require");
        }
        let config = format!("{base}?{}", rest.join("&")).parse::<Config>().map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            refused(format!("invalid address of a PostgreSQL server: {why}"))
        })?;
        Ok(Self { config, verify, root_certificate })
    }
}

/// Decodes `%2F` and the like.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()).flatten();
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("schema", &self.schema)
            .field("submit_connections", &self.submit)
            .field("work_connections", &self.work)
            .field("application_name", &self.application_name)
            .field("allow_volatile", &self.allow_volatile)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(options: &Options, url: &str) -> String {
        options.server(url).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn settings_that_can_never_work_are_refused_by_name() {
        let options = Options::new();
        for (url, named) in [
            ("mysql://localhost/db", "expected postgres://"),
            ("postgres:///db", "expected a host"),
            ("postgres://me:secret@localhost/db?sslmode=always", "`sslmode`"),
            ("postgres://me:secret@localhost/db?tuning=1", "`tuning`"),
            ("postgres://me:secret@localhost/db?target_session_attrs=read-only", "target_session_attrs"),
            ("postgres://me:secret@localhost/db?channel_binding=require", "channel_binding"),
            ("postgres://me:secret@localhost/db?sslmode=require&sslrootcert=/no/such/file", "sslrootcert"),
        ] {
            let error = error(&options, url);
            assert!(error.contains(named) && !error.contains("secret"), "{url}: {error}");
        }
        for schema in ["", "Jobs", "1jobs", "pg_jobs", "my-jobs", &"a".repeat(41)] {
            assert!(error(&options.clone().schema(schema), "postgres://localhost/db").contains("invalid schema"));
        }
        assert!(
            options.clone().submit_connections(0).sizes().unwrap_err().to_string().contains("submit_connections 0")
        );
        assert!(options.work_connections(65).sizes().unwrap_err().to_string().contains("work_connections 65"));
    }

    #[test]
    fn usual_addresses_are_accepted() {
        for url in [
            "postgres://localhost/db",
            "postgresql://me:p%40ss@127.0.0.1:6432/db?application_name=billing&connect_timeout=10",
            "postgres://me@first:5432,second:5433/db?target_session_attrs=read-write",
        ] {
            assert_eq!(error(&Options::new(), url), "", "{url}");
        }
        assert_eq!(percent_decoded("%2Ftmp%2Fa b%"), "/tmp/a b%");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_the_feature_is_refused() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = error(&Options::new(), &format!("postgres://localhost/db?sslmode={mode}"));
            assert!(error.contains("feature `tls`"), "{mode}: {error}");
        }
        assert_eq!(error(&Options::new(), "postgres://localhost/db?sslmode=prefer"), "");
    }
}
