//! A fresh store and its time. Must not know any particular store.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_endpoints_core::Store;

use crate::ManualClock;

/// The time of a store, in steps of one unit.
#[derive(Clone, Debug)]
pub struct Timeline {
    unit: Duration,
    clock: Option<ManualClock>,
}

impl Timeline {
    /// The smallest step that tests use.
    #[must_use]
    pub const fn unit(&self) -> Duration {
        self.unit
    }

    /// The duration of that many units.
    #[must_use]
    pub fn units(&self, n: u32) -> Duration {
        self.unit * n
    }

    /// The store's clock, if tests can advance it. Tests about hours need one.
    #[must_use]
    pub const fn clock(&self) -> Option<&ManualClock> {
        self.clock.as_ref()
    }

    /// Advances the clock, or sleeps.
    pub async fn advance(&self, units: u32) {
        match &self.clock {
            Some(clock) => clock.advance(self.units(units)),
            None => tokio::time::sleep(self.units(units)).await,
        }
    }

    /// Advances the clock, or blocks the thread.
    pub fn advance_blocking(&self, units: u32) {
        match &self.clock {
            Some(clock) => clock.advance(self.units(units)),
            None => std::thread::sleep(self.units(units)),
        }
    }
}

/// A fresh, empty store for one test.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its time.
    pub time: Timeline,
    guards: Vec<Box<dyn Any + Send>>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Fixture {
    /// A store on `clock`. A unit is a second, and tests do not sleep.
    pub fn manual(store: impl Store, clock: ManualClock) -> Self {
        let time = Timeline { unit: Duration::from_secs(1), clock: Some(clock) };
        Self { store: Arc::new(store), time, guards: Vec::new() }
    }

    /// A store on a clock that tests cannot advance. Tests sleep for multiples of `unit`, which has to be far longer than a
    /// call takes: 50 ms for example.
    pub fn real_time(store: impl Store, unit: Duration) -> Self {
        Self { store: Arc::new(store), time: Timeline { unit, clock: None }, guards: Vec::new() }
    }

    /// Keeps a value as long as the fixture: a temporary folder, a server.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// Puts a decorator around the store.
    #[must_use]
    pub fn wrap<S: Store>(mut self, with: impl FnOnce(Arc<dyn Store>) -> S) -> Self {
        self.store = Arc::new(with(self.store));
        self
    }

    /// Advances the clock, or sleeps.
    pub async fn advance(&self, units: u32) {
        self.time.advance(units).await;
    }
}
