//! The log as a receiver of notifications.

use async_trait::async_trait;

use super::super::{
    alert::{AlertStatus, Severity},
    sender::{AlertSender, Notification, SendError},
};
use crate::telemetry::events::{self, AlertLine};

/// Writes each notification as a line of the log: firing alerts of severity High and Critical as errors, other firing alerts
/// as warnings, and resolves as information.
#[derive(Copy, Clone, Debug, Default)]
pub struct Log;

#[async_trait]
impl AlertSender for Log {
    fn kind(&self) -> &'static str {
        "log"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let alert = &notification.alert;
        let line = AlertLine {
            rule: &alert.rule,
            severity: alert.severity.as_str(),
            alert_id: alert.id,
            since: alert.starts_at,
            title: &alert.title,
            detail: &alert.message,
        };
        match alert.status {
            AlertStatus::Firing => events::alert_firing(alert.severity >= Severity::High, &line),
            AlertStatus::Resolved => events::alert_resolved(&line),
        }
        Ok(())
    }
}
