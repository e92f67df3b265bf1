//! Messages for Slack, and for receivers that accept its format: Mattermost, Discord with `/slack` and others.

use async_trait::async_trait;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{SettingError, http::Target};
use crate::alerts::{
    alert::{Alert, AlertStatus, Severity},
    sender::{AlertSender, Notification, SendError},
};

/// Longest message. Discord rejects an attachment of more than 4096 characters.
const MAX_CHARS: usize = 2_000;

/// Posts each notification to an incoming webhook of Slack, or of a receiver that accepts its format.
///
/// Mattermost accepts it as it is, Discord with `/slack` after the path of its webhook. Redirects are not followed, and no
/// proxy is used.
///
/// ```no_run
/// # use async_endpoints::alerts::Slack;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sender = Slack::new(&std::env::var("SLACK_URL")?)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Slack(Target);

impl Slack {
    /// A sender to this URL, which is a secret.
    ///
    /// # Errors
    ///
    /// The URL is invalid, or the system has no certificate authorities for `https`.
    pub fn new(url: &str) -> Result<Self, SettingError> {
        Ok(Self(Target::new(url, "")?))
    }
}

#[async_trait]
impl AlertSender for Slack {
    fn kind(&self) -> &'static str {
        "slack"
    }

    async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        self.0.post(HeaderMap::new(), message(&notification.alert).to_string().into_bytes()).await
    }
}

/// Attachments, as not all receivers show blocks.
fn message(alert: &Alert) -> Value {
    let (prefix, color) = match (alert.status, alert.severity) {
        (AlertStatus::Resolved, _) => ("Resolved", "#2e7d32"),
        (_, Severity::Critical) => ("Firing", "#b71c1c"),
        (_, Severity::High) => ("Firing", "#e65100"),
        (_, Severity::Medium) => ("Firing", "#f9a825"),
        (_, Severity::Low) => ("Firing", "#1565c0"),
    };
    let summary = escaped(&format!("[{prefix}] {}", alert.title));
    let jobs: Vec<String> = alert.jobs().map(|job| job.to_string()).collect();
    let mut fields = vec![
        field("Severity", alert.severity.as_str()),
        field("Service", &alert.service),
        field("Rule", &alert.rule),
        field("Since", &alert.starts_at.to_string()),
    ];
    fields.extend(alert.ends_at.map(|end| field("Until", &end.to_string())));
    fields.extend((!jobs.is_empty()).then(|| field("Jobs", &jobs.join("\n"))));
    let details = json!({ "fallback": summary, "color": color, "text": escaped(&alert.message), "fields": fields });
    json!({ "text": summary, "attachments": [details] })
}

fn field(title: &str, value: &str) -> Value {
    json!({ "title": title, "value": escaped(value), "short": title != "Jobs" })
}

/// Shortens a text, and escapes the characters with which Slack marks links and mentions.
fn escaped(text: &str) -> String {
    let end = text.char_indices().nth(MAX_CHARS).map(|(end, _)| end);
    let shown = end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]));
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_long_text_is_shortened() {
        assert_eq!(escaped("a < b & <!channel>"), "a &lt; b &amp; &lt;!channel&gt;");
        assert_eq!(escaped(&"ü".repeat(MAX_CHARS)), "ü".repeat(MAX_CHARS));
        assert_eq!(escaped(&"&".repeat(MAX_CHARS + 1)), format!("{}…", "&amp;".repeat(MAX_CHARS)));
    }
}
