//! Mail as a receiver of notifications.
//!
//! | file | contents |
//! |---|---|
//! | `address` | senders and recipients |
//! | `message` | the text of a mail |
//! | `partial` | recipients that have a mail which others wait for |
//! | `server` | connections and the SMTP dialog |
//! | `url` | the URL of a server |

mod address;
mod message;
mod partial;
mod server;
mod url;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use lettre::message::{Mailbox, Mailboxes};
use tokio::time::timeout;

use self::{partial::Partial, server::Server};
use super::{
    super::sender::{AlertSender, Notification, SendError},
    SettingError,
};

/// Limit for the delivery of a mail. It leaves time for the end of the connection before the sender's own limit of 10 s.
const LIMIT: Duration = Duration::from_secs(8);

/// Limit for the end of a connection after a delivery.
const QUIT_LIMIT: Duration = Duration::from_secs(1);

/// Sends each notification as a mail with a text and an HTML part. Needs the feature `email`.
///
/// The mails of an alert form a thread: the first one, its repeats and the resolve. A retry has the `Message-ID` of the
/// first attempt. If the server refuses some recipients, the others get the mail, and a retry goes only to recipients
/// that have not got it.
///
/// ```
/// use async_endpoints::alerts::Email;
///
/// # fn main() -> Result<(), async_endpoints::alerts::SettingError> {
/// let email = Email::new(
///     "smtps://user:password@smtp.example.com",
///     "Alerts <alerts@example.com>",
///     r#"ops@example.com, "On call, Berlin" <oncall@example.com>"#,
/// )?;
/// # Ok(()) }
/// ```
pub struct Email {
    server: Server,
    from: Mailbox,
    to: Vec<Mailbox>,
    partial: Partial,
}

impl Email {
    /// A sender over the server of the URL. Does not connect.
    ///
    /// | URL | connection | default port |
    /// |---|---|---|
    /// | `smtps://[user:password@]host[:port]` | TLS | 465 |
    /// | `smtp://[user:password@]host[:port]?tls=required` | TLS after STARTTLS; without it nothing is sent | 587 |
    /// | `smtp://[user:password@]host[:port]` | not encrypted | 25 |
    ///
    /// In user and password, characters such as `@ : / ? # %` are percent-encoded. `to` is one address or several that
    /// are separated by commas. A display name that contains a comma is quoted.
    ///
    /// # Errors
    ///
    /// The URL or an address is invalid.
    pub fn new(smtp_url: &str, from: &str, to: &str) -> Result<Self, SettingError> {
        let (from, to) = (address::sender(from)?, address::recipients(to)?);
        let server = Server::new(smtp_url, from.email.domain())?;
        Ok(Self { server, from, to, partial: Partial::default() })
    }

    /// Trusts this root certificate (PEM) in place of the system's, for a server with a private authority.
    ///
    /// # Errors
    ///
    /// The certificate is invalid, or the URL is one without TLS.
    pub fn root_certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self, SettingError> {
        self.server.trust_only(pem.as_ref())?;
        Ok(self)
    }
}

#[async_trait]
impl AlertSender for Email {
    fn kind(&self) -> &'static str {
        "email"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let waiting = self.partial.waiting(notification.id, &self.to);
        let mail = message::compose(notification, &self.from, &self.to)
            .map_err(|error| SendError::Permanent(format!("the mail cannot be composed: {error}")))?;
        let delivery = self.server.deliver(&self.from.email, &waiting, &mail);
        let late = || SendError::temporary(format!("no answer from {} within {} s", self.server, LIMIT.as_secs()));
        let (refused, mut connection) = timeout(LIMIT, Box::pin(delivery)).await.map_err(|_| late())??;
        self.partial.record(notification.id, &self.to, &refused);
        // The mail is delivered, whatever happens now.
        drop(timeout(QUIT_LIMIT, connection.abort()).await);
        refused.into_result()
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to: Mailboxes = self.to.iter().cloned().collect();
        f.debug_struct("Email")
            .field("server", &format_args!("{}", self.server))
            .field("from", &format_args!("{}", self.from))
            .field("to", &format_args!("{to}"))
            .finish_non_exhaustive()
    }
}
