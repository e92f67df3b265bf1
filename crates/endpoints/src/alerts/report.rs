//! What operators see of the rules and silences.

use async_endpoints_core::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::silence::Silence;

/// The rules and silences of the fleet. Serializes as the document of `/alerts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertsReport {
    /// Every rule of this process, then rules of other processes alone.
    pub rules: Vec<RuleReport>,
    /// The silences that have not ended.
    pub silences: Vec<Silence>,
}

/// The state of a rule as of its last evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    /// The rule's name.
    pub rule: String,
    /// `inactive`, `pending`, `firing` or `resolved`.
    pub state: &'static str,
    /// When the state began; none for an inactive rule.
    pub since: Option<Timestamp>,
    /// The last value; none without one.
    pub value: Option<f64>,
    /// The rule fires above this value.
    pub threshold: f64,
    /// The facts that the rule read, as a JSON object. It has `error` if the last evaluation failed.
    pub details: Value,
}

/// The result of a test alert to one sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// The sender's name.
    pub sender: String,
    /// Whether the sender sent it.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
}
