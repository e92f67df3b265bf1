//! Two stores on the same jobs, as two processes have them: calls take turns between them. Must not know any store.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_endpoints_core::{JobStore, SharedState, Store, forward_store_calls};
use async_trait::async_trait;

/// A store that makes each call on the one or the other of two: what the one process did, the other knows.
#[derive(Debug)]
pub struct Turns<S> {
    stores: [S; 2],
    turn: AtomicUsize,
}

impl<S: Store> Turns<S> {
    /// Takes turns between these.
    #[must_use]
    pub const fn new(stores: [S; 2]) -> Self {
        Self { stores, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &S {
        // Two calls here, one there: else whoever calls by twos would always meet the same one.
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
