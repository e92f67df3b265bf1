//! A store of AsyncEndpoints in Redis 7 or newer (or Valkey): API and worker processes on many machines share it.
//!
//! | module | owns |
//! |---|---|
//! | `store`, `wire` | [`RedisStore`], its calls, and what they say and hear |
//! | `scripts`, `lua/*.lua` | every call is one script, which is one atomic step; each says its keys, arguments, result and cost |
//! | `options`, `server` | settings, and what a server must be like |
//! | `link`, `backoff`, `calls` | a connection that comes back, and scripts called over it |
//! | `inserts` | callers that insert at the same time share one call |
//! | `hints` | what changed, told by Redis |
//! | `record`, `stats`, `reply` | what is stored, read |
//! | `repair` | finds and mends jobs whose indexes disagree with them |
//!
//! Time is the server's. Nothing here knows retry policy, HTTP, handlers or telemetry. All keys begin with one prefix and
//! share its hash tag: `{ae}:job:<id>`, `{ae}:queued:<type>`, and so on; `lua/README.md` lists them.

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
mod scripts;
mod server;
mod stats;
mod store;
mod wire;

pub use options::{OpenError, Options};
pub use repair::Repaired;
pub use store::RedisStore;
