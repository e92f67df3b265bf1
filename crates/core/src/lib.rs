//! The core of AsyncEndpoints: job vocabulary, lifecycle, store contract and the in-memory store.
//!
//! Applications use the crate `async-endpoints`, which has this one as `core`. A store is written against this crate:
//!
//! ```
//! use async_endpoints_core::{Store, StoreError, store::StatsQuery};
//!
//! async fn quarantined(store: &dyn Store) -> Result<u64, StoreError> {
//!     Ok(store.stats(&StatsQuery::default()).await?.quarantined)
//! }
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`job`] | the vocabulary of jobs: ids, names, states, errors, progress, the view of a reader |
//! | [`lifecycle`] | the state machine, and the effect of an ended attempt: pure functions |
//! | [`retry`] | the delay before a retry |
//! | [`store`] | the calls of a store, each one atomic step |
//! | [`memory`] | [`MemoryStore`] |
//! | [`time`] | [`Timestamp`], and the [`Clock`] of a store |
//!
//! Nothing here knows HTTP, handlers, telemetry or any database. A store is written against this
//! crate alone; `docs/writing-a-store.md` explains how.

pub mod job;
pub mod lifecycle;
pub mod limits;
pub mod memory;
pub mod retry;
pub mod store;
pub mod time;
mod trace;

pub use job::{JobId, JobName, JobStatus, JobView, Priority};
pub use memory::MemoryStore;
pub use retry::RetryPolicy;
pub use store::{JobStore, SharedState, Store, StoreError};
pub use time::{Clock, SystemClock, Timestamp};
