//! Growing, jittered pauses between repeated calls that fail.

use std::time::Duration;

use crate::jitter;

/// Pauses from 0.1 s to 2 s, so that work resumes soon after an outage.
#[derive(Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        self.0 += 1;
        jitter::about(Duration::from_millis(50 << self.0.min(5)))
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}
