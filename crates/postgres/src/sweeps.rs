//! When a sweep of expired leases reads all leases. Must not know how it reads them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time between full sweeps of a process. While old rows cannot be vacuumed, a full sweep reads many dead ones.
const FULL_EVERY: Duration = Duration::from_secs(60);

/// When the last full sweep of this process began. The first sweep is a full one.
#[derive(Default)]
pub(crate) struct Sweeps(Mutex<Option<Instant>>);

impl Sweeps {
    /// Begins a sweep. Returns whether it is a full one. A full sweep that fails is not repeated at once.
    pub(crate) fn begin(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = last.is_none_or(|last| last.elapsed() >= FULL_EVERY);
        if is_full {
            *last = Some(Instant::now());
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sweep_in_a_minute_is_full() {
        let sweeps = Sweeps::default();
        assert!(sweeps.begin(), "the first");
        assert!(!sweeps.begin());
        *sweeps.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() - FULL_EVERY);
        assert!(sweeps.begin());
        assert!(!sweeps.begin());
    }
}
