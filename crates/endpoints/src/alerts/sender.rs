//! What a sender of notifications is, and which alerts it gets.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use uuid::Uuid;

use super::alert::{Alert, Severity};

/// A message about an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Unique id, the same over retries and after a change of the sending process. Receivers recognize repeats by it.
    ///
    /// The first notification of an alert has the alert's id. Mails of repeats and of the resolve refer to it.
    pub id: Uuid,
    /// The alert. Its status says whether it fires or is resolved.
    pub alert: Alert,
}

/// Sends notifications somewhere.
#[async_trait]
pub trait AlertSender: Send + Sync + 'static {
    /// Label `sender` of the metrics: `log`, `email`, `webhook`, `slack`, `alertmanager`, or a name of your own.
    fn kind(&self) -> &'static str;

    /// Sends a notification. The future is dropped after 10 s, and the sending is then retried.
    ///
    /// # Errors
    ///
    /// A [`SendError::Temporary`] is retried with growing pauses for a day, a [`SendError::Permanent`] is not retried.
    async fn send(&self, notification: &Notification) -> Result<(), SendError>;

    /// Interval in which the receiver wants each firing alert again, and each resolved one for five more minutes. These
    /// repeats are no notifications. Defaults to none.
    fn refresh_interval(&self) -> Option<Duration> {
        None
    }
}

/// A notification was not sent. The text must not contain secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A retry may succeed.
    #[error("{reason}")]
    Temporary {
        /// The reason.
        reason: String,
        /// Pause that the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// A retry cannot succeed.
    #[error("{0}")]
    Permanent(String),
}

impl SendError {
    /// A temporary error without a requested pause.
    pub fn temporary(reason: impl Into<String>) -> Self {
        Self::Temporary { reason: reason.into(), retry_after: None }
    }
}

/// A sender with its name and the alerts that it gets.
#[derive(Clone)]
pub(super) struct Route {
    /// Unique name, stored with pending notifications.
    pub(super) name: String,
    pub(super) sender: Arc<dyn AlertSender>,
    /// Alerts below are not sent.
    pub(super) min_severity: Severity,
}

impl Route {
    /// Whether the route gets this alert.
    pub(super) fn wants(&self, alert: &Alert) -> bool {
        alert.severity >= self.min_severity
    }
}
