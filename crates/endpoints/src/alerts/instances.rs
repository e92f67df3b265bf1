//! Values that each process reads of itself, such as its memory, for rules that one process evaluates for the fleet.

use async_endpoints_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::Outgoing;

/// Name of the rule about the memory of processes.
pub(super) const MEMORY: &str = "memory";
/// Name of the rule about failed store calls.
pub(super) const STORE_ERRORS: &str = "store_errors";

/// A value that a process reported for a rule. A process without one is below the rule's clear threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InstanceValue {
    /// The rule.
    pub(super) rule: String,
    /// Id of the process.
    pub(super) instance: String,
    /// The value, in the rule's unit.
    pub(super) value: f64,
    /// Number of events that the value is derived from, if it is derived from events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The alert of an outage that the process sent while no other one could know it, with the routes that have not received
    /// it. The next leader takes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outage: Option<Outgoing>,
    /// When it was reported, by the store's clock.
    pub(super) at: Timestamp,
}
