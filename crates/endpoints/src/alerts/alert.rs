//! An alert: what senders send and what receivers get as JSON.

use std::{fmt, str::FromStr};

use async_endpoints_core::{JobId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A problem that a rule found. Serializes as the JSON that webhooks receive.
///
/// An alert keeps its `id` and `starts_at` from the first notification to the resolve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Unique id of this alert.
    pub id: Uuid,
    /// Name of the rule.
    pub rule: String,
    /// Kind of the problem.
    pub alert_type: AlertType,
    /// How urgent it is.
    pub severity: Severity,
    /// Whether the problem persists.
    pub status: AlertStatus,
    /// A short summary.
    pub title: String,
    /// What is wrong, since when, how far beyond the threshold, sample jobs, and the next step.
    pub message: String,
    /// Facts of the rule, as a JSON object. It has `value`, `threshold` and `unit`, and `jobs` with at most three ids.
    pub details: Value,
    /// When the rule began to fire, by the store's clock.
    pub starts_at: Timestamp,
    /// When the problem ended; none while it persists.
    pub ends_at: Option<Timestamp>,
    /// Name of the service.
    pub service: String,
    /// Id of the process that evaluated the rule.
    pub instance: String,
}

impl Alert {
    /// Ids of sample jobs, at most three, read from the details.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        let jobs = self.details["jobs"].as_array().map_or(&[][..], Vec::as_slice);
        jobs.iter().filter_map(|id| Some(JobId(id.as_str()?.parse().ok()?)))
    }
}

/// Kind of a problem.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertType {
    /// Jobs are slow.
    Performance,
    /// Jobs or store calls fail.
    Error,
    /// The fleet or its machines have a problem.
    System,
}

impl AlertType {
    /// The kind as text, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Performance => "Performance",
            Self::Error => "Error",
            Self::System => "System",
        }
    }
}

/// How urgent an alert is. A later variant is more urgent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For the next review.
    Low,
    /// For the working day.
    Medium,
    /// For now.
    High,
    /// For now: the service does not work.
    Critical,
}

impl Severity {
    /// The severity as text, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Low, Self::Medium, Self::High, Self::Critical];
        let found = all.into_iter().find(|severity| severity.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("invalid severity {text:?}: expected Low, Medium, High or Critical"))
    }
}

/// Whether a problem persists.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// It persists.
    Firing,
    /// It has ended.
    Resolved,
}

impl AlertStatus {
    /// The status as text, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}
