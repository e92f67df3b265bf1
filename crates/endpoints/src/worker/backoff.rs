//! Growing, jittered pauses between calls to a failing store: at most two seconds, so that work resumes soon after an
//! outage.

use std::time::Duration;

use crate::jitter;

#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        self.0 += 1;
        jitter::about(Duration::from_millis(50 << self.0.min(5)))
    }

    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}
