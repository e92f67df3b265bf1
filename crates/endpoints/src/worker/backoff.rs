//! Waits between tries to reach a store: growing, jittered, at most two seconds, so that work resumes soon after it does.

use std::time::Duration;

#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        self.0 += 1;
        let longest = Duration::from_millis(50 << self.0.min(6)).min(Duration::from_secs(2));
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}
