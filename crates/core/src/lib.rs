//! The contract of AsyncEndpoints: the words, the rules and the store trait.
//!
//! | module | owns |
//! |---|---|
//! | [`job`] | what a job is: ids, names, states, errors, progress, the view a reader gets |
//! | [`lifecycle`] | which state follows which event, and what a finished attempt means: pure functions |
//! | [`retry`] | how long to wait before the next attempt |
//! | [`store`] | the calls every store answers, each one atomic step |
//! | [`memory`] | [`MemoryStore`], the store that needs nothing |
//! | [`time`] | [`Timestamp`] and the [`Clock`] that a store decides by |
//!
//! Nothing here knows HTTP, handlers, telemetry or any database. A store is written against this
//! crate alone; `docs/writing-a-store.md` is the one page to read for it.

pub mod job;
pub mod lifecycle;
pub mod limits;
pub mod memory;
pub mod retry;
pub mod store;
pub mod time;

pub use job::{JobId, JobName, JobStatus, JobView, Priority};
pub use memory::MemoryStore;
pub use retry::RetryPolicy;
pub use store::{JobStore, SharedState, Store, StoreError};
pub use time::{Clock, SystemClock, Timestamp};
