//! Jitter for polling intervals.

use std::time::Duration;

/// Returns `wait` changed by up to a quarter in either direction.
pub(crate) fn about(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + 0.5 * fastrand::f64())
}
