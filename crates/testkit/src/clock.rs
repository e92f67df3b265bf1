//! Clocks that tests advance. Must not know stores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{Clock, SystemClock, Timestamp};

/// 2026-03-01T12:00:00Z, in microseconds.
const START: i64 = 1_772_366_400_000_000;

/// A clock that stands still until it is advanced. Clones share their time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }
}

impl ManualClock {
    /// A clock at noon of March 1st, 2026.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).expect("a step that fits into a timestamp");
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The system's clock, which tests can advance further. Clones share their time.
#[derive(Clone, Debug, Default)]
pub struct RunningClock {
    system: Arc<SystemClock>,
    advanced: Arc<AtomicU64>,
}

impl RunningClock {
    /// A clock at the system's time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).expect("a step that fits into a timestamp");
        self.advanced.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for RunningClock {
    fn now(&self) -> Timestamp {
        self.system.now() + Duration::from_micros(self.advanced.load(Ordering::SeqCst))
    }
}
