//! The in-memory store against the whole contract.

use std::time::Duration;

use async_endpoints_core::{MemoryStore, SystemClock};
use async_endpoints_testkit::{Fixture, FlakyStore, ManualClock, Retrying, conformance};

async fn memory() -> Fixture {
    let clock = ManualClock::new();
    Fixture::manual(MemoryStore::with_clock(clock.clone()), clock)
}

conformance!(plain, memory());
