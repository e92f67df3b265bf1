//! The stored documents of alerts.

use std::collections::BTreeMap;

use async_endpoints_core::{JobId, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{alert::Alert, state::State};
use crate::{shared_document, store_call::within, telemetry::events};

/// The document with the state of the rules, and the role that guards it.
pub(super) const ALERTS: &str = "alerts";
/// The document with the silences.
pub(super) const SILENCES: &str = "alerts.silences";
/// The document with the values that processes report of themselves.
pub(super) const INSTANCES: &str = "alerts.instances";

/// The format that this release writes.
const FORMAT: u32 = 1;
/// Maximum number of pending notifications.
pub(super) const OUTBOX: usize = 100;

/// The state of all rules, and the notifications to send. One process writes it, under the role [`ALERTS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AlertDocument {
    format: u32,
    /// Id of the process that wrote the document.
    pub(super) leader: String,
    /// When the rules were evaluated last, by the store's clock.
    pub(super) evaluated_at: Option<Timestamp>,
    /// When an outage of the store muted rules last, by the store's clock.
    #[serde(default)]
    pub(super) muted_at: Option<Timestamp>,
    /// By rule name.
    pub(super) rules: BTreeMap<String, RuleState>,
    /// Notifications to send, oldest first.
    pub(super) outbox: Vec<Outgoing>,
    /// Senders whose last notification finally failed, with the reason.
    pub(super) failures: BTreeMap<String, String>,
    /// Alerts of outages that were taken over, as long as a process reports them.
    #[serde(default)]
    pub(super) taken_over: Vec<Uuid>,
    /// Made by the writer for each write, which it repeats until it knows the answer. Tells its own write from one of another
    /// process after a lost answer.
    pub(super) write: Uuid,
}

/// The state of one rule, with what its last evaluation read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RuleState {
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) value: Option<f64>,
    pub(super) threshold: f64,
    pub(super) unit: String,
    pub(super) count: Option<u64>,
    pub(super) message: String,
    pub(super) details: Map<String, Value>,
    /// Sample jobs, at most three.
    pub(super) jobs: Vec<JobId>,
    /// What the rule stored for its next evaluation.
    pub(super) memory: Value,
    /// Why the last evaluation failed.
    pub(super) error: Option<String>,
    /// Whether an outage of the store mutes the rule.
    pub(super) muted: bool,
    /// The alert that fires or fired last, as of the last evaluation with a value.
    pub(super) alert: Option<Alert>,
}

/// A notification that is not yet sent to all routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outgoing {
    /// Id of the notification.
    pub(super) id: Uuid,
    pub(super) alert: Alert,
    /// Names of the routes that have not received it.
    pub(super) to: Vec<String>,
    /// When it was decided, by the store's clock.
    pub(super) at: Timestamp,
    /// Whether the notification is in the store. It is not sent before.
    #[serde(skip, default = "stored")]
    pub(super) is_stored: bool,
}

const fn stored() -> bool {
    true
}

/// Why the document cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// A newer release wrote it.
    #[error("format {0} of the document {ALERTS:?}: expected {FORMAT} or less")]
    Newer(u32),
    #[error("the document {ALERTS:?} cannot be read: {0}")]
    Damaged(String),
}

impl AlertDocument {
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            leader: String::new(),
            evaluated_at: None,
            muted_at: None,
            rules: BTreeMap::new(),
            outbox: Vec::new(),
            failures: BTreeMap::new(),
            taken_over: Vec::new(),
            write: Uuid::new_v4(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unusable> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| Unusable::Damaged(error.to_string());
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(Unusable::Newer(format));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// Removes a notification of a route that received it, or never will.
    pub(super) fn remove(&mut self, notification: Uuid, route: &str) {
        for outgoing in self.outbox.iter_mut().filter(|outgoing| outgoing.id == notification) {
            outgoing.to.retain(|name| name != route);
        }
        self.outbox.retain(|outgoing| !outgoing.to.is_empty());
    }
}

/// Reads a document that any process writes; its default if there is none or if it cannot be decoded.
pub(super) async fn read<T: DeserializeOwned + Default>(store: &dyn Store, name: &str) -> Result<T, StoreError> {
    let document = within(store.document(name)).await?;
    decode(document.as_ref().map(|document| &*document.bytes))
}

/// Changes a document that any process writes. `change` may run more than once. It returns none to leave the document as it
/// is.
pub(super) async fn update<T, R>(
    store: &dyn Store,
    name: &str,
    change: impl Fn(&mut T) -> Option<R>,
) -> Result<Option<R>, StoreError>
where
    T: Serialize + DeserializeOwned + Default,
{
    shared_document::update(store, name, decode, change).await
}

/// Never fails: a document that cannot be decoded counts as empty.
fn decode<T: DeserializeOwned + Default>(bytes: Option<&[u8]>) -> Result<T, StoreError> {
    let content = bytes.map(serde_json::from_slice).transpose().unwrap_or_else(|error| {
        events::internal("a document of alerts cannot be read, and is taken as empty", &error);
        None
    });
    Ok(content.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{MemoryStore, SharedState};

    use super::*;

    #[test]
    fn document_survives_its_stored_form() {
        let mut document = AlertDocument::new();
        document.evaluated_at = Some(Timestamp::from_micros(1));
        let state = State::Firing { id: Uuid::nil(), starts_at: Timestamp::from_micros(2), notified_at: None };
        document.rules.insert("a".to_owned(), RuleState { state, value: Some(1.5), ..RuleState::default() });
        let bytes = serde_json::to_vec(&document).expect("JSON");
        assert_eq!(AlertDocument::decode(&bytes), Ok(document));
    }

    #[test]
    fn newer_and_damaged_documents_differ() {
        assert_eq!(AlertDocument::decode(br#"{"format": 2, "new": true}"#), Err(Unusable::Newer(2)));
        assert!(matches!(AlertDocument::decode(br#"{"format": 1}"#), Err(Unusable::Damaged(_))));
        assert!(matches!(AlertDocument::decode(b"\0"), Err(Unusable::Damaged(_))));
    }

    #[tokio::test]
    async fn unreadable_shared_document_is_replaced() {
        let store = MemoryStore::new();
        store.put_document("list", None, "{".into(), None).await.expect("memory answers");
        let added = update(&store, "list", |list: &mut Vec<u32>| {
            list.push(1);
            Some(())
        });
        assert!(added.await.expect("memory answers").is_some());
        assert_eq!(read::<Vec<u32>>(&store, "list").await.expect("memory answers"), [1]);
    }
}
