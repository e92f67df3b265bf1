//! Senders of notifications.

#[cfg(feature = "webhook")]
mod alertmanager;
#[cfg(feature = "email")]
mod email;
#[cfg(feature = "webhook")]
mod http;
mod log;
#[cfg(feature = "webhook")]
mod slack;
#[cfg(feature = "webhook")]
mod webhook;

#[cfg(feature = "webhook")]
pub use self::{alertmanager::Alertmanager, slack::Slack, webhook::Webhook};
#[cfg(feature = "email")]
pub use email::Email;
pub use log::Log;

/// An invalid setting of a sender or rule. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {setting}{}: {reason}", value.as_ref().map_or_else(String::new, |value| format!(" {value:?}")))]
pub struct SettingError {
    /// The setting, such as `SMTP URL`.
    pub(super) setting: &'static str,
    /// The value; none if it may contain a secret.
    pub(super) value: Option<String>,
    /// What is wrong and what is expected.
    pub(super) reason: String,
}
