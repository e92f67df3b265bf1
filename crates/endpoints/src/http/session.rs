//! Sessions of browsers: a signed cookie. The server stores nothing.
//!
//! The signature's key is derived from the token. Any process with this token accepts the session, and a new token ends all
//! sessions of the old one. The cookie has no level: the session has the level that the token has now.

use async_endpoints_core::job::Digest;
use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{loopback, site};

/// How long a session lasts, in seconds.
const SECONDS: u64 = 12 * 60 * 60;
const NAME: &str = "async_endpoints";
/// The prefixes with which browsers enforce the rules of a cookie (RFC 6265bis, 4.1.3).
const PREFIXES: [&str; 3] = ["__Host-", "__Secure-", ""];

/// Signs the sessions of a token.
#[derive(Clone)]
pub(super) struct SessionKey([u8; 64]);

impl SessionKey {
    pub(super) fn of(token: &str) -> Self {
        let derived = Sha256::new().chain_update("async-endpoints session\0").chain_update(token).finalize();
        let mut key = [0; 64];
        key[..derived.len()].copy_from_slice(&derived);
        Self(key)
    }

    /// The value of a session that begins at `now`, in seconds of Unix time: its end, a random number and the signature.
    fn sign(&self, now: u64, nonce: Uuid) -> String {
        let content = format!("{:x}.{}", now + SECONDS, nonce.simple());
        let signature = Digest(self.mac(&content).finalize().into_bytes().into());
        format!("{content}.{signature}")
    }

    /// Whether this is the value of a session that lasts at `now`.
    fn verifies(&self, value: &str, now: u64) -> bool {
        let Some((content, signature)) = value.rsplit_once('.') else { return false };
        let ends = content.split_once('.').and_then(|(ends, _)| u64::from_str_radix(ends, 16).ok());
        let is_signed = Digest::from_hex(signature).is_some_and(|signature| {
            // Compares in constant time.
            self.mac(content).verify_slice(&signature.0).is_ok()
        });
        is_signed && ends.is_some_and(|ends| now < ends)
    }

    fn mac(&self, content: &str) -> Hmac<Sha256> {
        Hmac::new(&self.0.into()).chain_update(content)
    }

    /// Whether the request has a session of this token.
    pub(super) fn is_in(&self, headers: &HeaderMap, now: u64) -> bool {
        cookies(headers).any(|value| self.verifies(value, now))
    }

    /// The `Set-Cookie` value that begins a session. `base` is the prefix of the library's routes.
    pub(super) fn begin(&self, request: &Parts, base: &str, now: u64) -> Option<HeaderValue> {
        cookie(request, base, &self.sign(now, Uuid::new_v4()), SECONDS)
    }
}

/// The `Set-Cookie` value that ends a session.
pub(crate) fn end(request: &Parts, base: &str) -> Option<HeaderValue> {
    cookie(request, base, "", 0)
}

/// The values of all cookies that may be a session.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.strip_prefix(prefix) == Some(NAME)))
        .map(|(_, value)| value)
}

/// `None` if the prefix has a character that a header cannot have.
fn cookie(request: &Parts, base: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
    // A `;` would end the attribute. The cookie is then valid for the whole host.
    let path = if base.is_empty() || base.contains(';') { "/" } else { base };
    let is_secure = is_secure(request);
    let prefix = match (is_secure, path) {
        (true, "/") => PREFIXES[0],
        (true, _) => PREFIXES[1],
        (false, _) => PREFIXES[2],
    };
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{prefix}{NAME}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(cookie).ok()
}

/// Whether the cookie may be sent over TLS only. Browsers name their scheme in `Origin`, also behind a proxy that ends TLS.
/// Over plain HTTP they would not store such a cookie. Without `Origin`, it is one unless the host is this machine.
fn is_secure(request: &Parts) -> bool {
    match site::origin(request) {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("https"),
        None => !site::host(request)
            .and_then(|host| host.parse().ok())
            .is_some_and(|host| loopback::is_loopback_host(&host)),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn session_is_valid_for_its_token_and_time() {
        let key = SessionKey::of("secret");
        let value = key.sign(NOW, Uuid::nil());
        for (now, is_valid) in [(0, true), (NOW, true), (NOW + SECONDS - 1, true), (NOW + SECONDS, false)] {
            assert_eq!(key.verifies(&value, now), is_valid, "{now}");
        }
        assert!(SessionKey::of("secret").verifies(&value, NOW), "another process");
        assert!(!SessionKey::of("secre").verifies(&value, NOW), "another token");
        assert_ne!(value, key.sign(NOW, Uuid::max()));
    }

    #[test]
    fn changed_session_is_invalid() {
        let key = SessionKey::of("secret");
        let value = key.sign(NOW, Uuid::nil());
        for at in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(!key.verifies(&changed, NOW), "{changed}");
        }
        let (content, signature) = value.rsplit_once('.').expect("a signature");
        for changed in [
            "",
            ".",
            "..",
            content,
            signature,
            &value[1..],
            &format!("{value}0"),
            &value.to_uppercase(),
            &format!("{content}."),
            &format!("{content}.{}", "é".repeat(32)),
        ] {
            assert!(!key.verifies(changed, NOW), "{changed}");
        }
    }

    #[test]
    fn session_is_found_among_cookies() {
        let key = SessionKey::of("secret");
        let value = key.sign(NOW, Uuid::nil());
        let finds = |cookies: &[&str]| {
            let headers: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
            key.is_in(&request(&headers).headers, NOW)
        };
        for prefix in PREFIXES {
            assert!(finds(&[&format!("a=b; {prefix}async_endpoints={value}; c")]));
            assert!(finds(&["async_endpoints=x", &format!("{prefix}async_endpoints={value}")]));
        }
        for other in ["", "async_endpoints", "async_endpoints=", &value, &format!("xasync_endpoints={value}")] {
            assert!(!finds(&[other]), "{other}");
        }
    }

    #[test]
    fn cookie_is_as_strict_as_the_connection_allows() {
        let host = |host| ("host", host);
        let origin = |origin| ("origin", origin);
        for (headers, base, name, path, is_secure) in [
            (vec![host("localhost:8080")], "", "async_endpoints", "/", false),
            (vec![host("127.0.0.1"), origin("http://127.0.0.1")], "/v1", "async_endpoints", "/v1", false),
            (vec![host("a.example"), origin("http://a.example")], "", "async_endpoints", "/", false),
            (vec![host("a.example"), origin("https://a.example")], "", "__Host-async_endpoints", "/", true),
            (vec![host("localhost"), origin("https://a.example")], "", "__Host-async_endpoints", "/", true),
            (vec![host("a.example"), origin("https://a.example")], "/v1", "__Secure-async_endpoints", "/v1", true),
            (vec![host("a.example")], "", "__Host-async_endpoints", "/", true),
            (vec![host("a.example")], "/a;b", "__Host-async_endpoints", "/", true),
            (vec![], "", "__Host-async_endpoints", "/", true),
        ] {
            let secure = if is_secure { "; Secure" } else { "" };
            let expected = format!("{name}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Strict{secure}");
            assert_eq!(end(&request(&headers), base).expect("a value"), expected, "{headers:?} {base}");
        }
        let key = SessionKey::of("secret");
        let begun = key.begin(&request(&[host("localhost")]), "", NOW).expect("a value");
        let begun = begun.to_str().expect("ASCII");
        assert!(begun.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{begun}");
        assert!(key.is_in(&request(&[("cookie", begun.split(';').next().expect("a pair"))]).headers, NOW));
    }
}
