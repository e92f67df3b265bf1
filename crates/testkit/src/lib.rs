//! The test suite of every store of AsyncEndpoints, and a clock for tests of applications.
//!
//! - For an application: [`ManualClock`] with `MemoryStore::with_clock`, so that retries and delays need no waiting.
//! - For a store or a decorator: [`conformance!`], [`check_model`] and [`check_faults`]. `docs/writing-a-store.md` explains them.
//!
//! | item | owns |
//! |---|---|
//! | [`conformance!`] | one named test for each rule of the contract |
//! | [`check_model`] | random calls, answered by a store and by a simple model |
//! | [`check_faults`] | a random workload while calls fail, before or after they were applied |
//! | [`Checked`] | a decorator that records every answer and finds contradictions |
//! | [`FlakyStore`] | a decorator that fails on purpose |
//! | [`Turns`] | two stores on the same jobs, as two processes have them |
//! | [`ManualClock`], [`RunningClock`], [`Fixture`] | time for tests |
//! | [`server`] | real servers, each in a folder and on a port of its own |
//!
//! Must not know more than `async-endpoints-core`: no driver, no HTTP, no worker.

// Test helpers panic with a reason, which is how tests fail.
#![allow(clippy::missing_panics_doc)]

mod checked;
mod clock;
pub mod conformance;
mod faults;
mod fixture;
mod flaky;
mod invariants;
pub mod jobs;
mod model;
mod rig;
pub mod server;
mod turns;

pub use checked::Checked;
pub use clock::{ManualClock, RunningClock};
pub use faults::check_faults;
pub use fixture::{Fixture, Timeline};
pub use flaky::{FlakyStore, Retrying, When};
pub use model::check_model;
pub use rig::Rig;
pub use turns::Turns;

/// For the macros of this crate.
#[doc(hidden)]
pub mod __private {
    pub use tokio;
}
