//! A store of AsyncEndpoints in PostgreSQL 15 or newer. API and worker processes on many machines share it.
//!
//! Applications get it from the crate `async-endpoints` with the feature `postgres`, and pass it to the builder:
//!
//! ```no_run
//! use async_endpoints_postgres::{Options, PostgresStore};
//!
//! # async fn open() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::open("postgres://app@localhost/shop").await?;
//! let own_tables = Options::new().schema("billing_jobs").open("postgres://app@localhost/shop").await?;
//! # Ok(()) }
//! ```
//!
//! - [`PostgresStore`]: the store. [`Options`] has its settings.
//! - [`OpenError`]: why a server is refused, and [whether to try again](OpenError::is_transient).
//! - [`PreparedJob`]: a job that a transaction of the application creates. [`Enqueued`] is the answer.
//! - `docs/postgres.md` has set-up, TLS, PgBouncer, failover, and errors with their remedies.
//!
//! | feature | adds | brings in |
//! |---|---|---|
//! | `tls` | encrypted connections (`sslmode`) | rustls with its ring provider |
//!
//! # Modules
//!
//! | module | owns |
//! |---|---|
//! | `store`, `calls` | [`PostgresStore`] and its tasks; the parts that all calls share |
//! | `sql/*.sql`, `schema` | tables, and one function per call, so one atomic step; versions of the schema and their migration |
//! | `inserts` | combines concurrent inserts into one call |
//! | `claim`, `lanes` | claims, and the lower bounds of order numbers that keep them fast beside dead rows |
//! | `settle`, `client`, `list`, `stats`, `health` | the other calls: their arguments and answers |
//! | `record`, `value`, `types` | rows of jobs, values of columns, numbers of job types |
//! | `enqueue` | prepares jobs for a transaction of the application |
//! | `hints` | hints of this process and of others |
//! | `link`, `backoff` | connections that are made again after they broke, driven by a thread of the store |
//! | `options`, `server`, `tls`, `fail` | settings, the checks of a server, TLS, and errors |
//!
//! All tables and functions are in one schema, `ae` by default, and every name in SQL is qualified. Time is the server's. No
//! module knows retry policy, HTTP, handlers or telemetry.

mod backoff;
mod calls;
mod cancel;
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
mod long_lanes;
mod options;
mod places;
mod record;
mod schema;
mod server;
mod settle;
mod stats;
mod store;
mod sweeps;
mod tls;
mod types;
mod value;

pub use enqueue::{Enqueued, PreparedJob};
pub use fail::OpenError;
pub use options::Options;
pub use store::PostgresStore;
/// The driver, for settings that an address cannot express.
pub use tokio_postgres;
