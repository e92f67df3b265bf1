//! The SQLite store against the whole contract: alone, behind a store that could fail, while it does, and as two
//! processes on one file.

mod common;

use std::time::Duration;

use async_endpoints_core::SystemClock;
use async_endpoints_sqlite::Synchronous;
use async_endpoints_testkit::{Fixture, FlakyStore, ManualClock, Retrying, check_faults, check_model, conformance};
use common::{Folder, open};

/// Waits for no disk: what is tested does not depend on it.
async fn timed() -> Fixture {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    Fixture::manual(open(&folder, Synchronous::Off, clock.clone()).await, clock).keep(folder)
}

conformance!(plain, timed());
