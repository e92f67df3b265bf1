//! Free places of queues: which inserts need no check of their queue limit. Must not know how inserts are made.
//!
//! A check locks the job type until its transaction has ended, so checked inserts of a type wait for each other's commit. While a
//! queue is far from its limit, a process may therefore take a sixteenth of the free places without a check, within 100 ms
//! after one. A queue with fewer than 1024 free places is always checked.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a check counts.
const FRESH: Duration = Duration::from_millis(100);
/// Free places below which each insert is checked.
const FEW: u64 = 1024;
/// The share of the free places that a process may take without a check is one of this many.
const SHARE: u64 = 16;

/// The last check of each type, by its number.
#[derive(Default)]
pub(crate) struct Places(Mutex<HashMap<i32, Check>>);

struct Check {
    at: Instant,
    waiting: u64,
    /// Places taken since, without a check.
    taken: u64,
}

impl Places {
    /// Takes places for `count` jobs of a type. Returns false if the limit has to be checked.
    pub(crate) fn take(&self, of_type: i32, limit: u64, count: u64) -> bool {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(check) = checks.get_mut(&of_type).filter(|check| check.at.elapsed() < FRESH) else { return false };
        let free = limit.saturating_sub(check.waiting);
        let fits = free >= FEW && check.taken + count <= free / SHARE;
        if fits {
            check.taken += count;
        }
        fits
    }

    /// Records a check, which found this many waiting jobs.
    pub(crate) fn checked(&self, of_type: i32, waiting: u64) {
        let check = Check { at: Instant::now(), waiting, taken: 0 };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(of_type, check);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteenth_of_the_free_places_needs_no_check() {
        let places = Places::default();
        assert!(!places.take(1, 10_000, 1), "no check yet");
        places.checked(1, 400);
        assert!(places.take(1, 10_000, 600));
        assert!(!places.take(1, 10_000, 1), "the sixteenth of 9600 is taken");
        assert!(!places.take(2, 10_000, 1), "another type");
        places.checked(1, 400);
        assert!(places.take(1, 10_000, 600), "after the next check");
    }

    #[test]
    fn nearly_full_queue_is_always_checked() {
        let places = Places::default();
        places.checked(1, 9_000);
        assert!(!places.take(1, 10_000, 1), "1000 places are few");
        assert!(!places.take(1, 5_000, 1), "full");
        assert!(places.take(1, 10_024, 1));
    }

    #[test]
    fn old_check_does_not_count() {
        let places = Places::default();
        places.checked(1, 0);
        places.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&1).expect("checked").at -= FRESH;
        assert!(!places.take(1, u64::MAX, 1));
    }
}
