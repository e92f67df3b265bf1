//! The stored operations.

use async_endpoints_core::{Store, StoreError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    BulkError, BulkOperation,
    operation::{Operation, State},
};
use crate::{shared_document, store_call::within};

/// The document with the operations, and the role of the process that runs them.
pub(super) const BULK: &str = "bulk";
/// Maximum number of previews.
const PREVIEWS: usize = 20;
/// Maximum number of removed previews whose ids are kept.
const EXPIRED: usize = 100;
/// Maximum number of ended operations.
const ENDED: usize = 50;

/// All operations, oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct BulkDocument {
    pub(super) operations: Vec<Operation>,
    /// Ids of removed previews, oldest first.
    #[serde(default)]
    expired: Vec<Uuid>,
}

impl BulkDocument {
    /// An operation that cannot be read must not be lost: the document is not replaced.
    fn decode(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        let document = bytes.map(serde_json::from_slice).transpose();
        let unreadable = |error| StoreError::Corrupt(format!("the document {BULK:?} cannot be read: {error}"));
        Ok(document.map_err(unreadable)?.unwrap_or_default())
    }

    pub(super) fn find(&mut self, id: Uuid) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| operation.id == id)
    }

    /// What operators see of an operation, or why they see none.
    pub(super) fn view(&self, id: Uuid) -> Result<BulkOperation, BulkError> {
        match self.operations.iter().find(|operation| operation.id == id) {
            Some(operation) => operation.view().ok_or(BulkError::NotStarted),
            None if self.expired.contains(&id) => Err(BulkError::Expired),
            None => Err(BulkError::NotFound),
        }
    }

    /// The operation to run next: the one that was started first.
    pub(super) fn next(&mut self) -> Option<&mut Operation> {
        let active = self.operations.iter_mut().filter(|operation| operation.is_active());
        active.min_by_key(|operation| operation.started_at)
    }

    /// Removes the oldest previews and ended operations beyond the limits.
    pub(super) fn prune(&mut self) {
        let previews = self.keep(PREVIEWS, |operation| operation.state == State::Previewed);
        self.expired.extend(previews);
        self.expired.drain(..self.expired.len().saturating_sub(EXPIRED));
        self.keep(ENDED, |operation| operation.ended_at.is_some());
    }

    /// Removes the oldest operations of a kind beyond the limit, and returns their ids.
    fn keep(&mut self, limit: usize, of: impl Fn(&Operation) -> bool) -> Vec<Uuid> {
        let surplus = self.operations.iter().filter(|operation| of(operation)).count().saturating_sub(limit);
        let oldest = self.operations.iter().filter(|operation| of(operation)).take(surplus);
        let removed: Vec<Uuid> = oldest.map(|operation| operation.id).collect();
        self.operations.retain(|operation| !removed.contains(&operation.id));
        removed
    }
}

/// Reads the operations.
pub(super) async fn read(store: &dyn Store) -> Result<BulkDocument, StoreError> {
    let document = within(store.document(BULK)).await?;
    BulkDocument::decode(document.as_ref().map(|document| &*document.bytes))
}

/// Changes the operations. `change` may run more than once, and returns none to leave them as they are.
pub(super) async fn update<R>(
    store: &dyn Store,
    change: impl Fn(&mut BulkDocument) -> Option<R>,
) -> Result<Option<R>, StoreError> {
    shared_document::update(store, BULK, BulkDocument::decode, change).await
}
