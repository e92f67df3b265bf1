//! A store that runs code of a test around its calls.

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Store, async_trait,
    core::{
        JobStore, SharedState, forward_store_calls,
        store::{Result, StoreOperation},
    },
};
use futures_util::future::BoxFuture;

type Hook = Box<dyn Fn(StoreOperation) + Send + Sync>;

/// Forwards all calls. Has no delay and no hooks by default.
pub struct HookedStore {
    inner: Arc<dyn Store>,
    delay: Duration,
    before: Hook,
    after: Hook,
}

impl HookedStore {
    pub fn new(inner: impl Store) -> Self {
        Self { inner: Arc::new(inner), delay: Duration::ZERO, before: Box::new(|_| {}), after: Box::new(|_| {}) }
    }

    /// Delays each call.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Runs before each call.
    pub fn before(self, hook: impl Fn(StoreOperation) + Send + Sync + 'static) -> Self {
        Self { before: Box::new(hook), ..self }
    }

    /// Runs after the answer of each call.
    pub fn after(self, hook: impl Fn(StoreOperation) + Send + Sync + 'static) -> Self {
        Self { after: Box::new(hook), ..self }
    }

    async fn run<'a, T>(
        &self,
        operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        (self.before)(operation);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let answer = call().await;
        (self.after)(operation);
        answer
    }
}

#[async_trait]
impl JobStore for HookedStore {
    forward_store_calls!(self.run => self.inner; job_calls);
    forward_store_calls!(self => self.inner; hints, kind);
}

#[async_trait]
impl SharedState for HookedStore {
    forward_store_calls!(self.run => self.inner; shared_calls);
}
