//! A fresh store, and how time passes for it. Must not know any particular store.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_endpoints_core::Store;

use crate::ManualClock;

/// How time passes for a store, in steps of one unit.
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

    /// That many steps.
    #[must_use]
    pub fn units(&self, n: u32) -> Duration {
        self.unit * n
    }

    /// The clock, if the store has one that tests can move. Tests of days need it.
    #[must_use]
    pub const fn clock(&self) -> Option<&ManualClock> {
        self.clock.as_ref()
    }

    /// Lets that many steps pass.
    pub async fn advance(&self, units: u32) {
        match &self.clock {
            Some(clock) => clock.advance(self.units(units)),
            None => tokio::time::sleep(self.units(units)).await,
        }
    }

    /// The same for a thread that must not touch a runtime.
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
    /// How time passes for it.
    pub time: Timeline,
    guards: Vec<Box<dyn Any + Send>>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Fixture {
    /// A store that decides by `clock`. A unit is a second; tests take no time.
    pub fn manual(store: impl Store, clock: ManualClock) -> Self {
        let time = Timeline { unit: Duration::from_secs(1), clock: Some(clock) };
        Self { store: Arc::new(store), time, guards: Vec::new() }
    }

    /// A store that decides by a clock that nobody can move. Tests wait for multiples of `unit`: about
    /// 50 ms; far longer than a call takes, or what must not expire yet does.
    pub fn real_time(store: impl Store, unit: Duration) -> Self {
        Self { store: Arc::new(store), time: Timeline { unit, clock: None }, guards: Vec::new() }
    }

    /// Keeps something alive as long as the fixture: a temporary folder, a server.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// The same fixture with another store around its store.
    #[must_use]
    pub fn wrap<S: Store>(mut self, with: impl FnOnce(Arc<dyn Store>) -> S) -> Self {
        self.store = Arc::new(with(self.store));
        self
    }

    /// Lets that many units pass.
    pub async fn advance(&self, units: u32) {
        self.time.advance(units).await;
    }
}
