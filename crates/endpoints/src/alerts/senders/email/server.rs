//! The SMTP server: its URL, connections to it, and the dialog that delivers a mail.

use std::{error::Error, fmt, time::Duration};

use lettre::{
    Address,
    transport::smtp::{
        self,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};

use super::{
    super::{super::sender::SendError, SettingError},
    url::{Security, ServerUrl},
};

/// Limit for one address of the server, so that a second one gets its turn.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Maximum length of an error's text, in characters.
const MAX_TEXT: usize = 300;

/// The first line of a certificate in PEM.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An SMTP server. Displayed as its URL without user and password.
pub(super) struct Server {
    url: ServerUrl,
    /// Name of this process for the server.
    name: ClientId,
    /// None for a connection that is not encrypted.
    tls: Option<TlsParameters>,
    credentials: Option<Credentials>,
}

impl Server {
    /// `name` is a domain of this process.
    pub(super) fn new(url: &str, name: &str) -> Result<Self, SettingError> {
        let (url, login) = ServerUrl::parse(url)?;
        let tls = match url.security {
            Security::None => None,
            Security::StartTls | Security::Tls => {
                let built = TlsParameters::new(url.host.clone());
                Some(built.map_err(|error| invalid_certificate(&error.to_string()))?)
            }
        };
        let credentials = login.map(|(user, password)| Credentials::new(user, password));
        Ok(Self { url, name: ClientId::Domain(name.to_owned()), tls, credentials })
    }

    /// Replaces the trusted certificates.
    pub(super) fn trust_only(&mut self, pem: &[u8]) -> Result<(), SettingError> {
        if self.tls.is_none() {
            return Err(invalid_certificate("the SMTP URL has no TLS: expected smtps://… or …?tls=required"));
        }
        let expected = "expected a CERTIFICATE in PEM";
        if !pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
            return Err(invalid_certificate(expected));
        }
        let with = |certificate| {
            let builder = TlsParametersBuilder::new(self.url.host.clone()).certificate_store(CertificateStore::None);
            builder.add_root_certificate(certificate).build()
        };
        self.tls = Some(Certificate::from_pem(pem).and_then(with).map_err(|_| invalid_certificate(expected))?);
        Ok(())
    }

    /// Delivers a mail. Returns the recipients that the server refused, and the connection, which the caller ends.
    pub(super) async fn deliver(
        &self,
        from: &Address,
        to: &[Address],
        mail: &[u8],
    ) -> Result<(Refused, AsyncSmtpConnection), SendError> {
        let mut connection = self.connect().await?;
        let failed = |error: &smtp::Error| failure("the mail is not accepted", error);
        connection.command(Mail::new(Some(from.clone()), Vec::new())).await.map_err(|error| failed(&error))?;
        let mut refused = Refused::default();
        for address in to {
            match connection.command(Rcpt::new(address.clone(), Vec::new())).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => refused.0.push((address.clone(), error)),
                Err(error) => return Err(failed(&error)),
            }
        }
        if refused.0.len() < to.len() {
            connection.command(Data).await.map_err(|error| failed(&error))?;
            connection.message(mail).await.map_err(|error| failed(&error))?;
        }
        Ok((refused, connection))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let failed = |error: &smtp::Error| failure(&format!("cannot connect to {self}"), error);
        let (tls, start_tls) = match self.url.security {
            Security::StartTls => (None, self.tls.clone()),
            Security::None | Security::Tls => (self.tls.clone(), None),
        };
        let address = (self.url.host.as_str(), self.url.port);
        let connected = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_LIMIT), &self.name, tls, None).await;
        let mut connection = connected.map_err(|error| failed(&error))?;
        if let Some(tls) = start_tls {
            if !connection.can_starttls() {
                return Err(SendError::temporary(format!("{self} does not offer STARTTLS, which ?tls=required needs")));
            }
            connection.starttls(tls, &self.name).await.map_err(|error| failed(&error))?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(|error| login_failure(&error))?;
        }
        Ok(connection)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Recipients that the server refused, with its replies.
#[derive(Default)]
pub(super) struct Refused(Vec<(Address, smtp::Error)>);

impl Refused {
    pub(super) fn contains(&self, address: &Address) -> bool {
        self.0.iter().any(|(refused, _)| refused == address)
    }

    /// Whether a retry can reach one of them.
    pub(super) fn can_retry(&self) -> bool {
        self.0.iter().any(|(_, error)| !error.is_permanent())
    }

    /// An error if there are any. It is temporary if a retry can reach one of them.
    pub(super) fn into_result(self) -> Result<(), SendError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let refusals =
            self.0.iter().map(|(address, error)| format!("recipient {address} is refused: {}", reason(error)));
        let text = refusals.collect::<Vec<_>>().join("; ");
        Err(if self.can_retry() { SendError::temporary(text) } else { SendError::Permanent(text) })
    }
}

fn failure(what: &str, error: &smtp::Error) -> SendError {
    classified(error, format!("{what}: {}", reason(error)))
}

/// The server's text may repeat the password. Only the codes are shown.
fn login_failure(error: &smtp::Error) -> SendError {
    let text = reason(error);
    let is_code = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let shown = match error.status() {
        Some(_) => text.split(' ').take_while(is_code).collect::<Vec<_>>().join(" "),
        None if error.is_client() => text,
        None => "the connection ended".to_owned(),
    };
    classified(error, format!("the login failed: {shown}"))
}

fn classified(error: &smtp::Error, text: String) -> SendError {
    if error.is_permanent() || error.is_client() { SendError::Permanent(text) } else { SendError::temporary(text) }
}

/// The reply's code and text, or the innermost cause.
fn reason(error: &smtp::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source().and_then(|source| source.downcast_ref::<smtp::Error>()) {
        error = inner;
    }
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let code = error.status().map_or_else(String::new, |code| format!("{code} "));
    // The text is the server's.
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect::<String>();
    format!("{code}{}", text.trim())
}

fn invalid_certificate(reason: &str) -> SettingError {
    SettingError { setting: "root certificate", value: None, reason: reason.to_owned() }
}
