//! The check of a particular store, named after its kind: what the store reports about itself.

use std::sync::Arc;

use async_endpoints_core::{Store, store::StoreHealth};
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::store_call::within;

pub(super) struct OwnStoreCheck(pub(super) Arc<dyn Store>);

#[async_trait]
impl HealthCheck for OwnStoreCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        let StoreHealth { data, degraded } = within(self.0.health()).await?;
        Ok(CheckResult { data, ..CheckResult::degraded_by(&degraded) })
    }
}
