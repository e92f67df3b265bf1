//! The URL of an SMTP server.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::super::SettingError;

const EXPECTED: &str = "expected smtps://[user:password@]host[:port], smtp://[user:password@]host[:port]?tls=required or, \
                        without encryption, smtp://[user:password@]host[:port]";

/// How a connection is encrypted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Security {
    None,
    /// TLS after the command STARTTLS.
    StartTls,
    Tls,
}

/// The URL without its secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub(super) security: Security,
    pub(super) host: String,
    pub(super) port: u16,
}

/// User and password.
pub(super) type Login = (String, String);

impl ServerUrl {
    /// Parses a URL. Errors contain no part of it, as a mistake may put the password anywhere.
    pub(super) fn parse(text: &str) -> Result<(Self, Option<Login>), SettingError> {
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let security = security(&url)?;
        // The brackets of an IPv6 address belong to the URL.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte)) {
            return Err(invalid("no valid host name"));
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(invalid(
                "a path or fragment after the host (in a password, / and # are written as %2F and %23)",
            ));
        }
        let default = match security {
            Security::None => 25,
            Security::StartTls => 587,
            Security::Tls => 465,
        };
        Ok((Self { security, host: host.to_owned(), port: url.port().unwrap_or(default) }, login(&url)?))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls { "smtps" } else { "smtp" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}:{}", self.port)
    }
}

fn security(url: &Url) -> Result<Security, SettingError> {
    let mut starts_tls = false;
    for (name, value) in url.query_pairs() {
        if name != "tls" || value != "required" {
            return Err(invalid(
                "an unknown parameter: only ?tls=required is known (in a password, ? is written as %3F)",
            ));
        }
        starts_tls = true;
    }
    match url.scheme() {
        "smtps" => Ok(Security::Tls),
        "smtp" if starts_tls => Ok(Security::StartTls),
        "smtp" => Ok(Security::None),
        _ => Err(invalid("an unknown scheme")),
    }
}

fn login(url: &Url) -> Result<Option<Login>, SettingError> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
    let decoded = |text: &str| decoded(text).map_err(|_| invalid("user or password is not UTF-8"));
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err(invalid("a password without a user")),
        (_, None) => Err(invalid("a user without a password")),
        (user, Some(password)) => Ok(Some((decoded(user)?, decoded(password)?))),
    }
}

fn invalid(reason: &str) -> SettingError {
    SettingError { setting: "SMTP URL", value: None, reason: format!("{reason}: {EXPECTED}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_encryption_address_and_login() {
        for (text, expected, login) in [
            ("smtp://mail.example.com", "smtp://mail.example.com:25", None),
            ("smtp://mail.example.com?tls=required", "smtp://mail.example.com:587", None),
            ("smtps://mail.example.com/", "smtps://mail.example.com:465", None),
            ("smtps://a%40b:c%2Fd%23@[::1]:1465", "smtps://[::1]:1465", Some(("a@b", "c/d#"))),
            ("smtp://u:p%3A1@127.0.0.1:2525/?tls=required", "smtp://127.0.0.1:2525", Some(("u", "p:1"))),
        ] {
            let (url, found) = ServerUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), expected);
            assert_eq!(found, login.map(|(user, password)| (user.to_owned(), password.to_owned())), "{text}");
            assert_eq!(url.security == Security::StartTls, text.ends_with("?tls=required"), "{text}");
        }
        assert_eq!(ServerUrl::parse("smtp://[::1]").unwrap().0.host, "::1");
    }

    #[test]
    fn error_says_what_is_wrong_without_the_url() {
        for (text, reason) in [
            ("", "relative URL without a base"),
            ("canary.example.com:25", "an unknown scheme"),
            ("http://canary@host", "an unknown scheme"),
            ("smtp://", "no valid host name"),
            ("smtp:canary", "no valid host name"),
            ("smtp://user:canary@", "empty host"),
            ("smtp://user:canary@host:0x", "invalid port number"),
            ("smtp://user:canary#1@host", "invalid port number"),
            ("smtp://user:7#canary@host", "a path or fragment"),
            ("smtp://user:7/canary@host", "a path or fragment"),
            ("smtp://user:7?canary@host", "an unknown parameter"),
            ("smtp://host?tls=opportunistic", "an unknown parameter"),
            ("smtp://canary@host", "a user without a password"),
            ("smtp://:canary@host", "a password without a user"),
            ("smtp://user:%ffcanary@host", "user or password is not UTF-8"),
            ("smtp://bücher.example", "no valid host name"),
        ] {
            let error = ServerUrl::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid SMTP URL: {reason}")), "{text}: {error}");
            assert!(error.ends_with(EXPECTED) && !error.contains("canary"), "{text}: {error}");
        }
    }
}
