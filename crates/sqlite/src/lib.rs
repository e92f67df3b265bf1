//! A durable store of AsyncEndpoints in one SQLite file.
//!
//! Applications get it from the crate `async-endpoints` with the feature `sqlite`, and pass it to the builder:
//!
//! ```no_run
//! use async_endpoints_sqlite::{Options, SqliteStore, Synchronous};
//!
//! # async fn open() -> Result<(), Box<dyn std::error::Error>> {
//! let store = SqliteStore::open("jobs.db").await?;
//! let fast = Options::new().synchronous(Synchronous::Normal).open("cache.db").await?; // a power cut may lose the last jobs
//! # Ok(()) }
//! ```
//!
//! - [`SqliteStore`]: the store. [`Options`] has its settings.
//! - [`OpenError`]: why a file cannot be opened, and [whether to try again](OpenError::is_transient).
//! - `docs/sqlite.md` has guarantees, failures with their recovery, and backup.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | `store` | [`SqliteStore`] and its calls, passed to the threads |
//! | `open` | settings of connections, the schema and its versions: `sql/*.sql` |
//! | `files`, `space`, `failure` | identity and damage of the files, disk space, errors |
//! | `queue`, `writer`, `reader` | queues of calls, the thread that writes, the threads that read |
//! | `state`, `ledger`, `types` | the writer's state during a step, cached counts, job types |
//! | `job`, `column`, `view`, `score`, `minutes` | rows of jobs, views of jobs, positions in indexes, minute buckets |
//! | `insert`, `lease`, `sweep`, `shared` | calls that write |
//! | `list`, `stats` | calls that read |
//!
//! An answered call is on disk: each commit is synced unless [`Synchronous`] says otherwise. Calls that arrive at the same
//! time share one commit. Several processes of one machine may open the same file. A network file system is not supported.
//! The store's time is the machine's wall clock.

mod column;
mod failure;
mod files;
mod insert;
mod job;
mod lease;
mod ledger;
mod list;
mod minutes;
mod open;
#[cfg(test)]
mod plans;
mod queue;
mod reader;
mod score;
mod shared;
mod space;
mod state;
mod stats;
mod store;
mod sweep;
mod types;
mod view;
mod writer;

pub use open::{OpenError, Synchronous};
pub use store::{Options, SqliteStore};
