//! The audit trail.

use std::sync::Arc;

use async_endpoints_core::StoreError;

use super::AsyncEndpoints;
use crate::audit::{AuditEntry, Trail};

impl AsyncEndpoints {
    /// Returns the last 500 actions of operators in the fleet, newest first, among them at most 100 failed logins.
    ///
    /// Actions over HTTP are recorded, by operator routes and the dashboard. Calls of these functions by the application are
    /// not.
    ///
    /// # Errors
    ///
    /// The store is unavailable or does not answer within 4.5 s.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// for entry in endpoints.audit().await? {
    ///     println!("{} {} {} {:?}: {}", entry.at, entry.who, entry.action, entry.target, entry.outcome);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, StoreError> {
        self.0.trail.entries().await
    }

    /// Where actions of operators are recorded.
    pub(crate) fn trail(&self) -> &Arc<Trail> {
        &self.0.trail
    }
}
