//! Posts JSON over HTTP and HTTPS, and decides whether a failed request is worth a retry.
//!
//! URLs and headers are secrets: errors and `Debug` show scheme, host and port only. Redirects are not followed. No proxy
//! is used. Each request has its own connection, because alerts are rare.

use std::{
    error::Error,
    fmt, io, iter,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
        header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
        uri::{Authority, Parts, Scheme},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::SettingError;
use crate::alerts::sender::SendError;

/// Limit of the TCP connection. The limit of the whole sending is that of [`AlertSender`](crate::alerts::AlertSender).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The setting in errors. A URL may contain a secret and is not shown.
const URL: &str = "URL";
const AGENT: HeaderValue = HeaderValue::from_static(concat!("async-endpoints/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The receiver of a sender's requests.
pub(super) struct Target {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    uri: Uri,
    /// Of the user name and password in the URL.
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Parses a URL and appends to its path.
    pub(super) fn new(url: &str, path: &str) -> Result<Self, SettingError> {
        let mut parts = url.parse().map(Uri::into_parts).map_err(|error| invalid_url(&error))?;
        let authorization = take_user(&mut parts)?;
        append(&mut parts, path)?;
        let uri = Uri::from_parts(parts).map_err(|error| invalid_url(&error))?;
        let client = client(&uri).map_err(|error| {
            let reason =
                format!("cannot read the system's certificate authorities: {error}: install them or set SSL_CERT_FILE");
            SettingError { setting: URL, value: None, reason }
        })?;
        Ok(Self { client, uri, authorization })
    }

    /// Posts JSON. A status other than 2xx is an error.
    pub(super) async fn post(&self, mut headers: HeaderMap, body: Vec<u8>) -> Result<(), SendError> {
        headers.extend([(CONTENT_TYPE, JSON), (USER_AGENT, AGENT)]);
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        match self.client.request(request).await {
            Ok(response) => self.check(&response),
            Err(error) => Err(SendError::temporary(format!("cannot send to {self}: {}", causes(&error)))),
        }
    }

    fn check<B>(&self, response: &Response<B>) -> Result<(), SendError> {
        let status = response.status();
        let reason = format!("{self} answered {status}");
        if status.is_success() {
            Ok(())
        } else if is_temporary(status) {
            Err(SendError::Temporary { reason, retry_after: retry_after(response.headers(), SystemTime::now()) })
        } else if status.is_redirection() {
            Err(SendError::Permanent(format!("{reason}: redirects are not followed")))
        } else {
            Err(SendError::Permanent(reason))
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.uri.authority().map_or("", Authority::as_str))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn invalid_url(reason: &dyn fmt::Display) -> SettingError {
    let reason = format!("{reason}: expected http://HOST/PATH or https://HOST/PATH");
    SettingError { setting: URL, value: None, reason }
}

/// Removes user name and password, and returns them as a header.
fn take_user(parts: &mut Parts) -> Result<Option<HeaderValue>, SettingError> {
    let known = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    let Some(authority) = parts.authority.take().filter(|_| parts.scheme.as_ref().is_some_and(known)) else {
        return Err(invalid_url(&"unknown scheme or no host"));
    };
    let (user, host) = authority.as_str().rsplit_once('@').map_or((None, authority.as_str()), |(u, h)| (Some(u), h));
    let host: Authority = host.parse().map_err(|error| invalid_url(&error))?;
    if host.as_str() != host.host() && host.port_u16().is_none_or(|port| port == 0) {
        return Err(invalid_url(&"invalid port"));
    }
    parts.authority = Some(host);
    Ok(user.map(basic))
}

/// The header of basic authentication for the percent-encoded `user` or `user:password`.
fn basic(user: &str) -> HeaderValue {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut decoded: Vec<u8> = percent_decode_str(name).collect();
    decoded.push(b':');
    decoded.extend(percent_decode_str(password));
    let header = format!("Basic {}", BASE64_STANDARD.encode(decoded));
    let mut header = HeaderValue::try_from(header).unwrap_or_else(|_| unreachable!("base64 is ASCII"));
    header.set_sensitive(true);
    header
}

fn append(parts: &mut Parts, path: &str) -> Result<(), SettingError> {
    let Some(before) = parts.path_and_query.take() else { return Err(invalid_url(&"no path")) };
    let query = before.query().map_or_else(String::new, |query| format!("?{query}"));
    let before_path = if path.is_empty() { before.path() } else { before.path().trim_end_matches('/') };
    let all = format!("{before_path}{path}{query}");
    parts.path_and_query = Some(all.parse().map_err(|error| invalid_url(&error))?);
    Ok(())
}

/// A client that knows the system's certificate authorities, or those in the file that `SSL_CERT_FILE` names.
fn client(uri: &Uri) -> io::Result<Client<HttpsConnector<HttpConnector>, Body>> {
    let ring = ring::default_provider();
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => {
            HttpsConnectorBuilder::new().with_provider_and_native_roots(ring)?
        }
        // Machines without TLS may have no authorities.
        _ => {
            let config = ClientConfig::builder_with_provider(ring.into()).with_safe_default_protocol_versions();
            let config = config.map_err(io::Error::other)?.with_root_certificates(RootCertStore::empty());
            HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth())
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

fn is_temporary(status: StatusCode) -> bool {
    let client = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || client.contains(&status)
}

/// The pause in `Retry-After`, in seconds or up to a date. None if it is missing, invalid or zero.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let until_date = || httpdate::parse_http_date(value).ok()?.duration_since(now).ok();
    value.parse().ok().map(Duration::from_secs).or_else(until_date).filter(|pause| !pause.is_zero())
}

/// An error and its sources. hyper and rustls put neither paths nor headers into them.
fn causes(error: &(dyn Error + 'static)) -> String {
    iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pause: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(pause).unwrap())])
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
        let pause = |text: &str| retry_after(&headers(text), now).map(|pause| pause.as_secs());
        assert_eq!(pause("120"), Some(120));
        assert_eq!(pause("Wed, 01 Jan 2025 00:00:07 GMT"), Some(7));
        for none in ["0", "-1", "1.5", "soon", "", "Tue, 31 Dec 2024 23:59:59 GMT"] {
            assert_eq!(pause(none), None, "{none:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn path_is_appended_and_user_is_removed() {
        for (url, path, uri) in [
            ("http://127.0.0.1:9093", "/api", "http://127.0.0.1:9093/api"),
            ("http://127.0.0.1:9093/", "/api", "http://127.0.0.1:9093/api"),
            ("http://127.0.0.1:9093/am/", "/api", "http://127.0.0.1:9093/am/api"),
            ("http://user:word@[::1]:9093/am?x=1", "/api", "http://[::1]:9093/am/api?x=1"),
            ("http://localhost/a/?b=c%20d", "", "http://localhost/a/?b=c%20d"),
        ] {
            let target = Target::new(url, path).unwrap();
            assert_eq!(target.uri, uri, "{url}");
            assert_eq!(target.authorization.is_some(), url.contains('@'));
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        for (user, decoded) in [("ops", "ops:"), ("ops:p%40ss%3A%2F:x", "ops:p@ss:/:x"), (":only", ":only")] {
            assert_eq!(basic(user), format!("Basic {}", BASE64_STANDARD.encode(decoded)));
        }
        assert!(basic("ops").is_sensitive());
    }

    #[test]
    fn invalid_url_is_rejected_without_showing_it() {
        for url in [
            "",
            "canary",
            "/canary",
            "canary:80",
            "ftp://canary/",
            "http://",
            "http:///canary",
            "http://canary:99999/",
            "http://canary:0/",
            "http://canary:/",
            "http://ca nary/",
            "https://u:canary@/",
            "http://a/can\nary",
        ] {
            let error = Target::new(url, "").unwrap_err();
            assert!(
                error.to_string().starts_with("invalid URL: ") && !format!("{error:?}{error}").contains("canary"),
                "{url}: {error}"
            );
        }
    }
}
