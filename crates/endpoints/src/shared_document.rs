//! Compare-and-swap changes of the documents that all processes of a fleet write.

use async_endpoints_core::{
    StoreError,
    store::{PutOutcome, Store},
};
use serde::Serialize;

use crate::store_call::within;

/// Maximum number of repeats of a write that other processes overtook.
const TRIES: u32 = 20;

/// Changes a document that any process writes. `decode` gets the stored bytes, none if there is no document. `change` may run
/// more than once, and returns none to leave the document as it is.
pub(crate) async fn update<T: Serialize, R>(
    store: &dyn Store,
    name: &str,
    decode: impl Fn(Option<&[u8]>) -> Result<T, StoreError>,
    change: impl Fn(&mut T) -> Option<R>,
) -> Result<Option<R>, StoreError> {
    for _ in 0..TRIES {
        let stored = within(store.document(name)).await?;
        let mut content = decode(stored.as_ref().map(|document| &*document.bytes))?;
        let Some(answer) = change(&mut content) else { return Ok(None) };
        let bytes = serde_json::to_vec(&content).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let version = stored.map(|document| document.version);
        if let PutOutcome::Stored(_) = within(store.put_document(name, version, bytes.into(), None)).await? {
            return Ok(Some(answer));
        }
    }
    Err(StoreError::Unavailable(format!("other processes overtook {TRIES} writes of the document {name:?}")))
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn concurrent_updates_are_all_kept() {
        let store = MemoryStore::new();
        let decode = |bytes: Option<&[u8]>| {
            let list: Option<Vec<u32>> = bytes.map(|bytes| serde_json::from_slice(bytes).expect("a list"));
            Ok(list.unwrap_or_default())
        };
        let add = |number: u32| {
            update(&store, "list", decode, move |list: &mut Vec<u32>| {
                list.push(number);
                Some(list.len())
            })
        };
        let lengths = futures_util::future::try_join_all((0..10).map(add)).await.expect("memory answers");
        let mut lengths: Vec<usize> = lengths.into_iter().flatten().collect();
        lengths.sort_unstable();
        assert_eq!(lengths, (1..=10).collect::<Vec<_>>());
    }
}
