//! The store that needs nothing: everything in this process, lost with it.

use std::sync::Arc;

use crate::time::{Clock, SystemClock};

/// x
pub struct MemoryStore {
    #[allow(dead_code)]
    clock: Arc<dyn Clock>,
}
impl MemoryStore {
    /// x
    pub fn new() -> Self {
        Self::with_clock(SystemClock::default())
    }
    /// x
    pub fn with_clock(clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock) }
    }
}
