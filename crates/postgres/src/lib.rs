//! A store of AsyncEndpoints in PostgreSQL 15 or newer. API and worker processes on many machines share it.

mod backoff;
mod calls;
mod claim;
mod client;
mod enqueue;
mod fail;
mod health;
mod hints;
mod inserts;
mod lanes;
mod link;
mod list;
mod options;
mod record;
mod schema;
mod server;
mod settle;
mod stats;
mod store;
mod tls;
mod types;
mod value;

pub use enqueue::{Enqueued, PreparedJob};
pub use fail::OpenError;
pub use options::Options;
pub use store::PostgresStore;
/// The driver, for settings that an address cannot express.
pub use tokio_postgres;
