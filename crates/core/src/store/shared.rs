//! State that the processes of a fleet share besides jobs: roles and small documents.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::Result;

/// Proof of a role. Random, so that a token is never issued twice, also after a failover.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RoleToken(pub Uuid);

/// The version of a document. Random, so that a version is never issued twice.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DocVersion(pub Uuid);

/// The answer to a request for a role.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The caller holds the role until the ttl passes. The token stays the same while the role is kept.
    Held(RoleToken),
    /// Another process holds the role, for at most this long.
    Other(Duration),
    /// The caller does not hold the role: it gave the role up with a ttl of zero.
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

/// The answer to a write of a document.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The document is written and has this version.
    Stored(DocVersion),
    /// The document has another version than expected. Read it again.
    Stale,
    /// The caller no longer holds the role that guards the write.
    Fenced,
}

/// Roles, which have at most one holder, and small shared documents, such as the state of alerts.
#[async_trait]
pub trait SharedState: Send + Sync + 'static {
    /// Takes or keeps a role for `ttl`. A `ttl` of zero gives the role up.
    async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role>;

    /// Returns a document, if it was ever written.
    async fn document(&self, name: &str) -> Result<Option<Document>>;

    /// Writes a document if its version is `expected`; `None` expects that there is none. If `role` is given, its token must
    /// still hold the role of that name.
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
