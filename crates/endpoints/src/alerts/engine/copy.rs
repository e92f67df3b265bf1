//! The leader's copy of the stored state.

use async_endpoints_core::{
    Store, StoreError,
    store::{DocVersion, PutOutcome, RoleToken},
};
use uuid::Uuid;

use super::super::document::{ALERTS, AlertDocument, Unusable};
use crate::{store_call::within, telemetry::events};

/// The state of the alerts, as the leader changes it.
pub(super) struct LeaderCopy {
    pub(super) document: AlertDocument,
    version: Option<DocVersion>,
    /// Whether it has changes that are not known to be stored.
    pub(super) is_dirty: bool,
}

/// The answer to a write of the copy.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Stored,
    /// Another process wrote meanwhile: the copy is worth nothing.
    Overtaken,
    /// The token does not hold the role.
    Fenced,
}

impl LeaderCopy {
    /// Reads the stored state. A document that cannot be decoded is replaced, unless a newer release wrote it.
    pub(super) async fn load(store: &dyn Store, leader: &str) -> Result<Result<Self, Unusable>, StoreError> {
        let stored = within(store.document(ALERTS)).await?;
        let version = stored.as_ref().map(|stored| stored.version);
        let decoded = stored.map_or_else(|| Ok(AlertDocument::new()), |stored| AlertDocument::decode(&stored.bytes));
        let mut document = match decoded {
            Ok(document) => document,
            Err(error @ Unusable::Damaged(_)) => {
                events::internal("the state of the alerts is lost, and begins anew", &error);
                AlertDocument::new()
            }
            Err(error @ Unusable::Newer(_)) => return Ok(Err(error)),
        };
        leader.clone_into(&mut document.leader);
        document.write = Uuid::new_v4();
        Ok(Ok(Self { document, version, is_dirty: false }))
    }

    /// Writes the copy. After an error it is not known whether it is stored, and the next call finds out.
    pub(super) async fn save(&mut self, store: &dyn Store, token: RoleToken) -> Result<Saved, StoreError> {
        loop {
            let bytes = serde_json::to_vec(&self.document).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let put = store.put_document(ALERTS, self.version, bytes.into(), Some((ALERTS, token)));
            match within(put).await? {
                PutOutcome::Stored(version) => {
                    self.stored(version);
                    return Ok(Saved::Stored);
                }
                PutOutcome::Fenced => return Ok(Saved::Fenced),
                PutOutcome::Stale => {
                    // An earlier write may be stored although its answer was lost. It has the same `write`.
                    let Some(version) = self.own_version(store).await? else { return Ok(Saved::Overtaken) };
                    self.version = Some(version);
                }
            }
        }
    }

    /// The version of the stored document if an earlier, unanswered call of [`save`](Self::save) wrote it.
    async fn own_version(&self, store: &dyn Store) -> Result<Option<DocVersion>, StoreError> {
        let Some(stored) = within(store.document(ALERTS)).await? else { return Ok(None) };
        let document = AlertDocument::decode(&stored.bytes);
        let is_own = document.is_ok_and(|document| document.write == self.document.write);
        Ok(is_own.then_some(stored.version))
    }

    fn stored(&mut self, version: DocVersion) {
        self.version = Some(version);
        self.is_dirty = false;
        self.document.outbox.iter_mut().for_each(|outgoing| outgoing.is_stored = true);
        self.document.write = Uuid::new_v4();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_endpoints_core::{
        MemoryStore, SharedState,
        store::{Role, StoreOperation},
    };
    use async_endpoints_testkit::{FlakyStore, When};

    use super::*;

    async fn token(store: &dyn SharedState, holder: u128) -> RoleToken {
        match store.role(ALERTS, Uuid::from_u128(holder), Duration::from_secs(60)).await {
            Ok(Role::Held(token)) => token,
            other => panic!("expected the role, not {other:?}"),
        }
    }

    async fn load(store: &dyn Store) -> LeaderCopy {
        LeaderCopy::load(store, "one").await.expect("the store answers").expect("a usable document")
    }

    #[tokio::test]
    async fn write_with_lost_reply_is_recognized() {
        let store = FlakyStore::new(Arc::new(MemoryStore::new()));
        let token = token(&store, 1).await;
        let mut copy = load(&store).await;
        for round in 0..2 {
            store.fail_next(StoreOperation::PutDocument, When::After);
            copy.save(&store, token).await.expect_err("the reply is lost");
            copy.document.failures.insert(round.to_string(), "more".to_owned());
            assert_eq!(copy.save(&store, token).await.expect("the store answers"), Saved::Stored);
        }
        assert_eq!(load(&store).await.document.failures, copy.document.failures);
    }

    #[tokio::test]
    async fn write_of_another_process_overtakes() {
        let store = FlakyStore::new(Arc::new(MemoryStore::new()));
        let token = token(&store, 1).await;
        let (mut first, mut second) = (load(&store).await, load(&store).await);
        assert_eq!(first.save(&store, token).await.expect("the store answers"), Saved::Stored);
        store.fail_next(StoreOperation::PutDocument, When::Before);
        second.save(&store, token).await.expect_err("the call is lost");
        assert_eq!(second.save(&store, token).await.expect("the store answers"), Saved::Overtaken);
    }

    #[tokio::test]
    async fn write_without_the_role_is_fenced() {
        let store = MemoryStore::new();
        token(&store, 1).await;
        let mut copy = load(&store).await;
        let saved = copy.save(&store, RoleToken(Uuid::nil())).await.expect("memory answers");
        assert_eq!((saved, copy.version), (Saved::Fenced, None));
    }

    #[tokio::test]
    async fn damaged_state_is_replaced_and_newer_is_kept() {
        let store = MemoryStore::new();
        let token = token(&store, 1).await;
        store.put_document(ALERTS, None, "{".into(), None).await.expect("memory answers");
        let mut copy = load(&store).await;
        assert_eq!(copy.save(&store, token).await.expect("memory answers"), Saved::Stored);
        store.put_document(ALERTS, copy.version, r#"{"format": 9}"#.into(), None).await.expect("memory answers");
        let newer = LeaderCopy::load(&store, "one").await.expect("memory answers").err();
        assert_eq!(newer, Some(Unusable::Newer(9)));
    }
}
