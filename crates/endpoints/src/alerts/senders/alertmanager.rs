//! Alerts for Prometheus Alertmanager, over its API v2.

use std::time::{Duration, SystemTime};

use async_endpoints_core::Timestamp;
use async_trait::async_trait;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{SettingError, http::Target};
use crate::alerts::{
    alert::{Alert, AlertStatus},
    sender::{AlertSender, Notification, SendError},
};

const REFRESH: Duration = Duration::from_secs(60);

/// Posts alerts to Prometheus Alertmanager, which groups, silences and delivers them.
///
/// Alertmanager forgets an alert that is not sent again, so a firing one is sent every minute. It stays active for four
/// minutes after the last sending.
///
/// Labels: `alertname` and `rule` are the name of the rule; `severity`, `alert_type` and `service` follow the alert.
/// Severity and type are in lower case. Annotations: `summary` is the title, `description` the message. Processes and
/// leader changes do not change the labels, so a resolve reaches the alert that it belongs to.
///
/// An Alertmanager cluster needs a sender for each of its members.
///
/// ```no_run
/// # use async_endpoints::alerts::Alertmanager;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sender = Alertmanager::new("http://alertmanager:9093")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Alertmanager {
    target: Target,
    refresh: Duration,
    generator: Option<String>,
}

impl Alertmanager {
    /// A sender to the Alertmanager with this URL. The path `/api/v2/alerts` is appended to it.
    ///
    /// # Errors
    ///
    /// The URL is invalid, or the system has no certificate authorities for `https`.
    pub fn new(url: &str) -> Result<Self, SettingError> {
        Ok(Self { target: Target::new(url, "/api/v2/alerts")?, refresh: REFRESH, generator: None })
    }

    /// Sets the interval in which a firing alert is sent again. Defaults to 60 s.
    #[must_use]
    pub const fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// Sets the page that Alertmanager links as the source of alerts, such as the dashboard of this service.
    #[must_use]
    pub fn generator_url(mut self, url: impl Into<String>) -> Self {
        self.generator = Some(url.into());
        self
    }

    fn document(&self, alert: &Alert, now: Timestamp) -> Value {
        // Alertmanager rejects an end before the start. The store's clock may differ from this one.
        let end = match alert.status {
            AlertStatus::Firing => now.max(alert.starts_at) + self.refresh * 4,
            AlertStatus::Resolved => alert.ends_at.unwrap_or(now).max(alert.starts_at),
        };
        let mut document = json!({
            "labels": {
                "alertname": alert.rule,
                "rule": alert.rule,
                "severity": alert.severity.as_str().to_lowercase(),
                "alert_type": alert.alert_type.as_str().to_lowercase(),
                "service": alert.service,
            },
            "annotations": { "summary": alert.title, "description": alert.message },
            "startsAt": alert.starts_at,
            "endsAt": end,
        });
        if let Some(url) = &self.generator {
            document["generatorURL"] = url.as_str().into();
        }
        json!([document])
    }
}

#[async_trait]
impl AlertSender for Alertmanager {
    fn kind(&self) -> &'static str {
        "alertmanager"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let document = self.document(&notification.alert, SystemTime::now().into());
        self.target.post(HeaderMap::new(), document.to_string().into_bytes()).await
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.refresh)
    }
}
