//! The Redis store of AsyncEndpoints, for Redis 7 or newer (or Valkey). API and worker processes on many machines share it.
//!
//! Applications get it from the crate `async-endpoints` with the feature `redis`, and pass it to the builder:
//!
//! ```no_run
//! use async_endpoints_redis::{Options, RedisStore};
//!
//! # async fn open() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::open("redis://localhost:6379/0").await?;
//! let own_keys = Options::new().prefix("print").open("redis://localhost:6379/0").await?;
//! # Ok(()) }
//! ```
//!
//! - [`RedisStore`]: the store. [`Options`] has its settings, such as a client that exists already.
//! - [`OpenError`]: why a server is refused, and [whether to try again](OpenError::is_transient).
//! - [`RedisStore::repair`]: repairs indexes after keys were deleted or changed by another program.
//! - `docs/redis.md` has the server's settings, guarantees, failures with their recovery, and backup.
//!
//! | feature | adds | brings in |
//! |---|---|---|
//! | `tls` | `rediss://` | rustls with its ring provider |
//!
//! # Modules
//!
//! | module | owns |
//! |---|---|
//! | `store`, `wire` | [`RedisStore`] and its calls; their arguments and answers |
//! | `scripts`, `lua/*.lua` | one script per call, and so one atomic step; each file begins with its keys, arguments, result and cost |
//! | `options`, `server`, `fail` | settings, the checks of a server, and errors |
//! | `link`, `backoff`, `calls`, `args` | a connection that is made again after it broke, and script calls over it |
//! | `inserts` | combines concurrent inserts into one call |
//! | `hints` | receives hints by publish and subscribe |
//! | `record`, `stats`, `reply` | decode stored jobs, statistics and answers |
//! | `repair` | repairs indexes that disagree with their jobs |
//!
//! Time is the server's. No module knows retry policy, HTTP, handlers or telemetry. All keys begin with one prefix and share
//! its hash tag: `{ae}:job:<id>`, `{ae}:queued:<type>` and so on; `lua/README.md` lists them.

mod args;
mod backoff;
mod calls;
mod fail;
mod hints;
mod inserts;
mod link;
mod options;
mod record;
mod repair;
mod reply;
mod rights;
mod scripts;
mod server;
mod stats;
mod store;
mod wire;

pub use fail::OpenError;
pub use options::Options;
/// The driver, for [`Options::open_with`] and [`Options::open_client`].
pub use redis;
pub use repair::Repaired;
pub use store::RedisStore;
