//! Waits that do not fall in step: with each other's process, or with anything else that comes regularly.

use std::time::Duration;

/// About as long: a quarter more or less.
pub(crate) fn about(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + 0.5 * fastrand::f64())
}
