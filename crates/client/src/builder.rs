//! Settings of a client.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{self, HeaderMap},
};

use crate::{client::Client, connection::Connection, error::Error, headers, retries::Retries};

/// Time limit for a connection to the service, with the client's own HTTP client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a [`Client`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use async_endpoints_client::{Client, Retries};
///
/// # fn main() -> Result<(), async_endpoints_client::Error> {
/// let client = Client::builder("https://print.example/v1")
///     .bearer_token("8c4f…")
///     .header("x-tenant", "acme")
///     .timeout(Duration::from_secs(10))
///     .retries(Retries { give_up_after: Duration::from_secs(60), ..Retries::default() })
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder {
    base: String,
    headers: Result<HeaderMap, Error>,
    timeout: Duration,
    retries: Retries,
    http: Option<reqwest::Client>,
}

impl Client {
    /// A client with default settings for the service at a base address, such as `http://127.0.0.1:8080`. The address has
    /// the prefix, if the service's routes have one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if this is no base address, [`Error::HttpClient`] if no HTTP client can be made.
    pub fn new(base: &str) -> Result<Self, Error> {
        Self::builder(base).build()
    }

    /// Makes a client with other settings.
    pub fn builder(base: &str) -> ClientBuilder {
        ClientBuilder::new(base)
    }
}

impl ClientBuilder {
    fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            headers: Ok(HeaderMap::new()),
            timeout: Duration::from_secs(30),
            retries: Retries::default(),
            http: None,
        }
    }

    /// Adds a header to every request, also to those of streams.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = self.headers.and_then(|headers| headers::with(headers, name, value));
        self
    }

    /// Sends `Authorization: Bearer …` with every request.
    pub fn bearer_token(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))
    }

    /// Sets the time limit of one request. Waits may take longer by the time that the service was asked to wait. Defaults
    /// to 30 s.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sets how long a failed request is repeated.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Uses an HTTP client with settings of your own: TLS, proxies, redirects. It should have no time limit for whole
    /// requests, which would cut streams and waits.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = Some(client);
        self
    }

    /// Makes the client. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the base address or a header, [`Error::HttpClient`] if no HTTP client can be made.
    pub fn build(self) -> Result<Client, Error> {
        let base = base(&self.base)?;
        let http = match self.http {
            Some(http) => http,
            None => http()?,
        };
        let Self { timeout, retries, .. } = self;
        let connection = Connection { http, base, headers: self.headers?, timeout, retries };
        Ok(Client { connection: Arc::new(connection) })
    }
}

fn base(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
    url.ok_or_else(|| Error::Invalid {
        what: "base address",
        value: text.to_owned(),
        expected: "http:// or https://, a host, and a path or none",
    })
}

fn http() -> Result<reqwest::Client, Error> {
    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build().map_err(Error::HttpClient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_address_needs_scheme_and_host() {
        for bad in ["", "localhost:8080", "/v1", "ftp://host", "http://", "http://host/?a=b", "http://host/#top"] {
            let error = ClientBuilder::new(bad).build().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid base address {bad:?}: expected http://")), "{error}");
        }
        for good in ["http://127.0.0.1:8080", "https://print.example/v1/", "http://[::1]:80/a%20b"] {
            assert!(ClientBuilder::new(good).build().is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_header_is_an_error_without_its_value() {
        for (name, value) in [("x tenant", "a"), ("x-tenant", "a\nb"), ("", "a")] {
            let error = ClientBuilder::new("http://host").header(name, value).build().unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}: expected")), "{error}");
        }
        let error = ClientBuilder::new("http://host").bearer_token("secret\n").build().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn token_is_not_shown() {
        let client = ClientBuilder::new("http://host").bearer_token("secret").build().unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }
}
