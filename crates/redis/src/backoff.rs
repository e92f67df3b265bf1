//! How soon a connection is made again. Must not know which.

use std::time::Duration;

/// Between two tries: from the first to the second, growing.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(1000);

pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// Waits after a connection that served for so long. One that served well comes back at once; one that died at its birth
    /// would come and go without end.
    pub(crate) async fn wait(&mut self, served: Duration) {
        if served >= LONGEST {
            self.0 = FIRST;
            return;
        }
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
