//! Silences: an operator's decision that a rule sends no notification for a time.

use async_endpoints_core::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Suppresses the notifications of a rule. An alert that still fires when its silence ends is notified then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    /// Unique id.
    pub id: Uuid,
    /// Name of the rule.
    pub rule: String,
    /// Who decided it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When it ends, by the store's clock.
    pub ends_at: Timestamp,
}
