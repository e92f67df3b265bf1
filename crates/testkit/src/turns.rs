//! Two stores on the same jobs, as in two processes, with alternating calls. Must not know any particular store.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_endpoints_core::{JobStore, SharedState, Store, forward_store_calls};
use async_trait::async_trait;

/// A store that makes each call on one of two stores: changes made through one must be visible through the other.
#[derive(Debug)]
pub struct Turns<S> {
    stores: [S; 2],
    turn: AtomicUsize,
}

impl<S: Store> Turns<S> {
    /// Alternates between these stores.
    #[must_use]
    pub const fn new(stores: [S; 2]) -> Self {
        Self { stores, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &S {
        // Two calls on the first store, then one on the second: a test that makes calls in pairs then reaches both.
        &self.stores[usize::from(self.turn.fetch_add(1, Ordering::Relaxed) % 3 == 2)]
    }
}

#[async_trait]
impl<S: Store> JobStore for Turns<S> {
    forward_store_calls!(self => self.next(); job_calls, hints, kind);
}

#[async_trait]
impl<S: Store> SharedState for Turns<S> {
    forward_store_calls!(self => self.next(); shared_calls);
}
