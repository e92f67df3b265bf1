//! The Redis store of AsyncEndpoints, for Redis 7 or newer (or Valkey). API and worker processes on many machines share it.
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
