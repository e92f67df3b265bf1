//! Asynchronous HTTP endpoints for [axum]: a slow endpoint answers `202 Accepted` with a job at once, workers run its
//! handler and survive crashes, callers follow the job, operators see everything.
//!
//! ```no_run
//! use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore};
//!
//! // One typed name, shared by the process that accepts and the process that works.
//! const COUNT_WORDS: JobType<String, usize> = JobType::new("CountWords");
//!
//! async fn count_words(ctx: JobContext<String>) -> Result<usize, JobError> {
//!     Ok(ctx.request().split_whitespace().count())
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoints = AsyncEndpoints::builder(MemoryStore::new())
//!     .endpoint(Endpoint::post("/api/count-words", COUNT_WORDS))
//!     .handler(COUNT_WORDS, count_words)
//!     .build()?;
//! let app = axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! endpoints.serve(listener, app).await?; // HTTP and workers, until SIGTERM or Ctrl-C
//! # Ok(()) }
//! ```
//!
//! An endpoint without a handler in the same process is fine (the process only accepts), and so is a handler
//! without an endpoint (it only works, or jobs are [submitted from code](AsyncEndpoints::submit)).
//!
//! Delivery is **at least once**: a job whose worker dies runs again, so a handler's effects should bear a repeat.
//! Every write of a worker is guarded by its lease: of all attempts of a job, one is settled.

mod builder;
mod context;
mod endpoints;
mod envelope;
mod error;
mod fleet;
mod handler;
mod http;
mod hub;
mod jitter;
mod job_type;
mod json;
mod late;
mod middleware;
mod options;
mod server;
mod signal;
mod stats;
mod stats_cache;
mod store_call;
mod submit;
mod sync;
pub mod telemetry;
mod worker;

pub use async_endpoints_core::{
    self as core, JobId, JobName, JobStatus, JobView, MemoryStore, Priority, RetryPolicy, Store, StoreError, Timestamp,
    store::{CancelOutcome, JobLookup, RetryOutcome},
};
#[cfg(feature = "redis")]
pub use async_endpoints_redis::{self as redis, RedisStore};
#[cfg(feature = "sqlite")]
pub use async_endpoints_sqlite::{self as sqlite, SqliteStore};
pub use async_trait::async_trait;
pub use axum;
pub use builder::{BuildError, Builder};
pub use bytes::Bytes;
pub use context::{AttemptInfo, JobContext, ProgressReporter};
pub use endpoints::AsyncEndpoints;
pub use error::{Classification, JobError};
pub use handler::{Classified, JobHandler};
pub use http::{Access, Endpoint, JobDocument, Owner, Problem, Responses, Submission};
pub use job_type::JobType;
pub use late::{DeferredStore, Refusal};
pub use middleware::{Middleware, Next};
pub use options::{Options, OptionsError};
pub use stats::{Figures, JobStats, Percentiles};
pub use submit::{Accepted, Submit, SubmitError};
pub use telemetry::Telemetry;
pub use tokio_util::sync::CancellationToken;
#[cfg(feature = "openapi")]
pub use utoipa;
pub use worker::WorkerStatus;

/// The README's examples are tested with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/http.md")]
struct HttpPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/metrics.md")]
struct MetricsPage;
