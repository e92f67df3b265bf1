//! A durable store of AsyncEndpoints in one SQLite file.
//!
//! | module | owns |
//! |---|---|
//! | `store` | [`SqliteStore`] and its calls, handed to the threads |
//! | `open` | settings, schema and its versions: `sql/*.sql` |
//! | `file`, `time`, `space` | whether the files are still ours, the time that all agree on, space given back |
//! | `queue`, `writer`, `reader` | how calls reach the threads, group commit, snapshots |
//! | `state`, `ledger`, `job`, `view` | a step of the writer: counts, the one way to change a job, rows, what readers see |
//! | `insert`, `lease`, `sweep`, `shared` | calls that write |
//! | `list`, `stats` | calls that read |
//!
//! A call that was answered is on disk: each commit is synced unless [`Synchronous`] says otherwise. Calls that come
//! at the same time share one commit. Several processes of one machine may open the same file; a network file system
//! will not do. All of them decide by one time, whatever their clocks say: the file's, which never goes back.

mod fail;
mod file;
mod insert;
mod job;
mod lease;
mod ledger;
mod list;
mod open;
mod order;
#[cfg(test)]
mod plans;
mod queue;
mod reader;
mod shared;
mod slots;
mod space;
mod state;
mod stats;
mod store;
mod sweep;
mod time;
mod view;
mod writer;

pub use open::{OpenError, Synchronous};
pub use store::{Options, SqliteStore};
