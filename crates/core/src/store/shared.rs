//! What a fleet shares beside jobs: who leads, and small documents.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::Result;

/// Proof of a role; random, so that a failover cannot give the same one again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RoleToken(pub Uuid);

/// Version of a document; random for the same reason.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DocVersion(pub Uuid);

/// Who holds a role.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// You, until the ttl passes; the token stays the same while you keep it.
    Held(RoleToken),
    /// Somebody else, for this long at most.
    Other(Duration),
    /// You gave it up (ttl 0), or never had it.
    Resigned,
}

/// A stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its version.
    pub version: DocVersion,
    /// Its content.
    pub bytes: Bytes,
}

/// What became of a written document.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// Written; this is its version now.
    Stored(DocVersion),
    /// Somebody wrote it in between: read again.
    Stale,
    /// The role that guards it is no longer yours.
    Fenced,
}

/// Leadership and small shared documents, such as the state of alerts.
#[async_trait]
pub trait SharedState: Send + Sync + 'static {
    /// Takes or keeps a role for `ttl`; a `ttl` of zero gives it up.
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role>;

    /// A document, if it was ever written.
    async fn document(&self, name: &str) -> Result<Option<Document>>;

    /// Writes a document if it still has the version `expected` (`None`: if there is none), and if the
    /// role named with its token, where one is given, is still held by it.
    async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome>;
}

#[async_trait]
impl<T: SharedState + ?Sized> SharedState for Arc<T> {
    crate::forward_store_calls!(self => **self; shared_calls);
}
