//! A fresh store and its time. Must not know any particular store.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_endpoints_core::Store;

use crate::{ManualClock, RunningClock};

/// The time of a store, in steps of one unit.
#[derive(Clone, Debug)]
pub struct Timeline {
    unit: Duration,
    passing: Passing,
}

/// How a store's time passes.
#[derive(Clone, Debug)]
enum Passing {
    Manual(ManualClock),
    Running(RunningClock),
    /// On a clock that tests cannot advance.
    Sleep,
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

    /// The store's clock, if it stands still between steps. Tests about hours or exact times need one.
    #[must_use]
    pub const fn clock(&self) -> Option<&ManualClock> {
        match &self.passing {
            Passing::Manual(clock) => Some(clock),
            Passing::Running(_) | Passing::Sleep => None,
        }
    }

    /// Advances the clock, or sleeps.
    pub async fn advance(&self, units: u32) {
        match &self.passing {
            Passing::Manual(clock) => clock.advance(self.units(units)),
            Passing::Running(clock) => clock.advance(self.units(units)),
            Passing::Sleep => tokio::time::sleep(self.units(units)).await,
        }
    }

    /// Advances the clock, or blocks the thread.
    pub fn advance_blocking(&self, units: u32) {
        match &self.passing {
            Passing::Manual(clock) => clock.advance(self.units(units)),
            Passing::Running(clock) => clock.advance(self.units(units)),
            Passing::Sleep => std::thread::sleep(self.units(units)),
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
        Self::new(store, Duration::from_secs(1), Passing::Manual(clock))
    }

    /// A store on `clock`, whose time also passes between calls. A unit is 5 s, and tests do not sleep. A slow machine
    /// changes no answer, unless it pauses for a unit.
    pub fn running(store: impl Store, clock: RunningClock) -> Self {
        Self::new(store, Duration::from_secs(5), Passing::Running(clock))
    }

    /// A store on a clock that tests cannot advance. Tests sleep for multiples of `unit`, which has to be far longer than a
    /// call takes on a busy machine: 200 ms for example.
    pub fn real_time(store: impl Store, unit: Duration) -> Self {
        Self::new(store, unit, Passing::Sleep)
    }

    fn new(store: impl Store, unit: Duration, passing: Passing) -> Self {
        Self { store: Arc::new(store), time: Timeline { unit, passing }, guards: Vec::new() }
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
