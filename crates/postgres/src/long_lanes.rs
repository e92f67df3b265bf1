//! Lanes with at least [`AHEAD_COUNTED`] waiting jobs, which submissions do not count again. Must not know how inserts are made.
//!
//! A lane is a type and a priority. A submission answers how many jobs are ahead, and the count stops at [`AHEAD_COUNTED`].
//! Counting took a fifth of the server's time while a backlog grew. A count that stopped there is therefore reused for 100 ms.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::{job::Priority, limits::AHEAD_COUNTED};

/// How long a count is reused.
const FRESH: Duration = Duration::from_millis(100);

/// The number of a lane: ten times the type plus the priority, as in `insert_v1`.
pub(crate) fn lane(of_type: i32, priority: Priority) -> i64 {
    i64::from(of_type) * 10 + i64::from(priority.get())
}

/// The long lanes, each with the time of its count.
#[derive(Default)]
pub(crate) struct LongLanes(Mutex<HashMap<i64, Instant>>);

impl LongLanes {
    /// The lanes that need no count now.
    pub(crate) fn known(&self, now: Instant) -> Vec<i64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, at| now.saturating_duration_since(*at) < FRESH);
        counts.keys().copied().collect()
    }

    /// Records the answer of a call that began at `at`, unless the lane was `known` to it.
    pub(crate) fn counted(&self, lane: i64, ahead: u64, at: Instant, known: &[i64]) {
        if ahead >= AHEAD_COUNTED && !known.contains(&lane) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test of plans has the same number for `insert_v1`.
    #[test]
    fn lane_has_the_number_of_insert_v1() {
        assert_eq!(lane(1, Priority::new(4)), 14);
    }

    #[test]
    fn long_lane_is_counted_again_after_a_while() {
        let (lanes, now) = (LongLanes::default(), Instant::now());
        lanes.counted(14, AHEAD_COUNTED - 1, now, &[]);
        assert!(lanes.known(now).is_empty(), "a short lane is counted for each call");
        lanes.counted(14, AHEAD_COUNTED, now, &[]);
        assert_eq!(lanes.known(now), [14]);
        assert!(lanes.known(now + FRESH).is_empty());
    }

    #[test]
    fn reused_count_is_not_renewed() {
        let (lanes, now) = (LongLanes::default(), Instant::now());
        lanes.counted(14, AHEAD_COUNTED, now, &[14]);
        assert!(lanes.known(now).is_empty());
    }
}
