//! A store of AsyncEndpoints in PostgreSQL 13 or newer. API and worker processes on many machines share it.

mod backoff;
mod fail;
mod link;
mod options;
mod server;
mod tls;

pub use fail::OpenError;
pub use options::Options;
/// The driver, for settings that an address cannot express.
pub use tokio_postgres;
