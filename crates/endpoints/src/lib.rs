//! Asynchronous HTTP endpoints for [axum]: a slow endpoint answers `202 Accepted` at once, background workers run the job
//! and survive crashes, callers follow the job, and operators see and control everything.
//!
//! ```no_run
//! use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore};
//!
//! // One typed name, shared by the processes that accept and run its jobs.
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
//! A process may have endpoints without handlers and then only accepts jobs. It may have handlers without endpoints and
//! then only runs jobs, which other processes accept or code [submits](AsyncEndpoints::submit).
//!
//! Delivery is **at least once**: a job whose worker dies runs again, so handlers should be idempotent.
//! Every write of a worker is guarded by its lease, so only one attempt of a job ends it.

mod acceptor;
pub mod alerts;
mod backoff;
mod builder;
mod caller;
mod cancellation;
mod context;
#[cfg(feature = "dashboard")]
mod dashboard;
mod deferred_store;
mod domain;
mod endpoints;
mod envelope;
mod error;
mod failure_rate;
mod fleet;
mod handler;
pub mod health;
mod http;
mod hub;
mod jitter;
mod job_lists;
mod job_type;
mod jobs;
mod json;
mod log_buffer;
mod middleware;
mod new_job;
mod options;
mod owner;
mod panics;
mod progress;
mod results;
mod server;
mod signal;
mod slow;
mod stats;
mod stats_cache;
mod store_call;
mod stuck;
mod submit;
mod sync;
pub mod telemetry;
mod time_limit;
mod vitals;
mod worker;

pub use async_endpoints_core::{
    self as core, JobId, JobName, JobStatus, JobView, MemoryStore, Priority, RetryPolicy, Store, StoreError, Timestamp,
    store::{CancelOutcome, JobLookup, LiveWorker, RetryOutcome},
};
#[cfg(feature = "redis")]
pub use async_endpoints_redis::{self as redis, RedisStore};
#[cfg(feature = "sqlite")]
pub use async_endpoints_sqlite::{self as sqlite, SqliteStore};
pub use async_trait::async_trait;
pub use axum;
pub use builder::{BuildError, Builder};
pub use bytes::Bytes;
pub use cancellation::CancellationReason;
pub use context::{AttemptInfo, FollowUp, FollowUps, JobContext};
pub use deferred_store::{DeferredStore, Refusal};
pub use domain::DomainError;
pub use endpoints::AsyncEndpoints;
pub use error::{Classification, JobError};
pub use failure_rate::{FailureRate, FailureRates};
pub use fleet::{Waiting, WaitingReason};
pub use handler::{Classified, JobHandler};
pub use http::{Access, AccessLevel, Endpoint, Grant, JobDocument, Owner, Problem, Responses, Submission};
pub use job_type::JobType;
pub use jobs::{JobPage, Jobs, ListError};
pub use middleware::{Middleware, Next};
pub use new_job::{Accepted, SubmitError};
pub use options::{CaptureLevel, DashboardOptions, Enrich, InstanceColor, Options, OptionsError, Propagation};
pub use owner::JobOwner;
pub use progress::ProgressReporter;
pub use results::{ResultError, TypedJob};
pub use slow::{SlowJob, SlowJobs};
pub use stats::{Figures, JobStats, Percentiles};
pub use stuck::{StuckJob, StuckReason};
pub use submit::Submit;
#[cfg(feature = "telemetry")]
pub use telemetry::Telemetry;
pub use tokio_util::sync::CancellationToken;
#[cfg(feature = "openapi")]
pub use utoipa;
pub use worker::WorkerStatus;

/// Tests the examples of the README.
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
#[doc = include_str!("../../../docs/coming-from-dotnet.md")]
struct DotnetPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/logging.md")]
struct LoggingPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/metrics.md")]
struct MetricsPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/tracing.md")]
struct TracingPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/health.md")]
struct HealthPage;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/alerts.md")]
struct AlertsPage;
