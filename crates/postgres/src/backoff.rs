//! The wait between two attempts to connect.

use std::time::Duration;

/// The first and the longest wait.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(1000);

pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// Waits with jitter, the shortest time after a connection that lasted for a second or longer. All connections of a
    /// server that restarts break together.
    pub(crate) async fn wait(&mut self, served: Duration) {
        if served >= LONGEST {
            self.0 = FIRST;
        }
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
