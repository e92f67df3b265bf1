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
//!
//! # Declare jobs
//! - [`JobType`]: a name with the types of request and result, and rules such as the timeout. One constant for all processes.
//! - [`Endpoint`]: a route that accepts jobs of a type. [`Submission`] and [`Problem`] are for its validator.
//! - [`AsyncEndpoints::builder`]: puts store, endpoints and handlers together. [`Options`] has the settings.
//!
//! # Write handlers
//! - [`JobHandler`]: an async function with a [`JobContext`], or a type of your own.
//!   [`Builder::blocking_handler`] runs code that blocks.
//! - [`JobContext`]: the request, the attempt, [progress](AttemptInfo::progress), [cancellation](AttemptInfo::check_canceled),
//!   [follow-up jobs](JobContext::submit).
//! - [`JobError`] and [`DomainError`]: what is retried, and what callers see. [`RetryPolicy`] has the delays.
//! - [`Middleware`]: code around every attempt.
//!
//! # Serve
//! - [`submit_routes`](AsyncEndpoints::submit_routes), [`job_routes`](AsyncEndpoints::job_routes) and
//!   [`monitoring_routes`](AsyncEndpoints::monitoring_routes): routers of axum. [`Responses`] changes their answers.
//! - [`serve`](AsyncEndpoints::serve) and [`run`](AsyncEndpoints::run): HTTP and workers, or workers alone, until SIGTERM.
//! - [`Builder::owner`] and [`Access`]: whose jobs a caller sees, and who is an operator.
//!
//! # Use jobs in code
//! - [`submit`](AsyncEndpoints::submit), [`wait`](AsyncEndpoints::wait), [`result`](AsyncEndpoints::result): one job.
//! - [`jobs`](AsyncEndpoints::jobs): lists, cancel and retry, also for one owner.
//! - The crate `async-endpoints-client` does the same over HTTP.
//!
//! # Choose a store
//! - [`MemoryStore`]: in the process, for tests and work that may be lost.
//! - `SqliteStore` (feature `sqlite`): one file, for one machine. `RedisStore` (feature `redis`): for several machines.
//! - `PostgresStore` (feature `postgres`): for several machines, and for jobs that your own transaction creates.
//! - [`DeferredStore`]: opens a store that is not available yet. [`Store`]: the contract for a store of your own.
//!
//! # Operate
//! - `Telemetry` (feature `telemetry`): logs, metrics and traces. [`telemetry`] has names and instruments.
//! - [`health`]: probes and checks. [`alerts`]: rules and senders.
//! - `dashboard_routes` (feature `dashboard`): pages that show and steer jobs.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds | brings in |
//! |---|---|---|
//! | `sqlite` | `SqliteStore` | rusqlite with a bundled SQLite, which needs a C compiler |
//! | `redis` | `RedisStore` | redis |
//! | `redis-tls` | `redis`, and `rediss://` | rustls |
//! | `postgres` | `PostgresStore` | tokio-postgres |
//! | `postgres-tls` | `postgres`, and encrypted connections | rustls |
//! | `telemetry` | `Telemetry`: `/metrics`, spans, log outputs, captured log lines of jobs | opentelemetry_sdk, tracing-subscriber, flate2, procfs |
//! | `otlp` | `telemetry`, and export of traces, metrics and logs to a collector | opentelemetry-otlp, tonic, reqwest |
//! | `otlp-tls` | `otlp`, and collectors at `https:` | rustls |
//! | `console` | `telemetry`, and exporters that print, for development | opentelemetry-stdout |
//! | `email` | `alerts::Email` | lettre, rustls |
//! | `webhook` | `alerts::Webhook`, `Slack`, `Alertmanager` | hyper-rustls, hmac |
//! | `reqwest` | trace contexts in requests of reqwest | reqwest |
//! | `dashboard` | `AsyncEndpoints::dashboard_routes`: pages for operators | maud, flate2, hmac |
//! | `openapi` | [`Endpoint::documented`](Endpoint#method.documented): schemas of your types in `/openapi.json` | utoipa |
//!
//! # Pages
//!
//! The repository has a tutorial, guides by task, a page with every setting, and pages about HTTP, deployment, stores, metrics, logs,
//! traces, health and alerts. Its `docs/README.md` lists them.

mod acceptor;
pub mod alerts;
mod audit;
mod backoff;
mod bodiless;
mod builder;
mod bulk;
mod caller;
mod cancellation;
mod capacity;
mod context;
#[cfg(feature = "dashboard")]
mod dashboard;
mod deferred_store;
mod domain;
mod endpoints;
mod envelope;
mod error;
mod explain;
mod failure_rate;
mod failures;
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
#[cfg(doctest)]
mod pages;
mod panics;
mod progress;
mod request;
mod results;
mod series;
mod server;
mod shared_document;
mod signal;
mod slow;
mod stats;
mod stats_cache;
mod store_call;
mod stuck;
mod submit;
mod sync;
pub mod telemetry;
mod text;
mod time_limit;
mod types;
mod vitals;
mod worker;

pub use async_endpoints_core::{
    self as core, JobId, JobName, JobStatus, JobView, MemoryStore, Priority, RetryPolicy, Store, StoreError, Timestamp,
    store::{CancelOutcome, JobLookup, LiveWorker, RetryOutcome},
};
#[cfg(feature = "postgres")]
pub use async_endpoints_postgres::{self as postgres, PostgresStore};
#[cfg(feature = "redis")]
pub use async_endpoints_redis::{self as redis, RedisStore};
#[cfg(feature = "sqlite")]
pub use async_endpoints_sqlite::{self as sqlite, SqliteStore};
pub use async_trait::async_trait;
pub use audit::AuditEntry;
pub use axum;
pub use builder::{BuildError, Builder};
pub use bulk::{BulkAction, BulkError, BulkFilter, BulkOperation, BulkPreview, BulkStatus, NewBulk};
pub use bytes::Bytes;
pub use cancellation::CancellationReason;
pub use context::{AttemptInfo, FollowUp, FollowUps, JobContext};
pub use deferred_store::{DeferredStore, Refusal};
pub use domain::DomainError;
pub use endpoints::AsyncEndpoints;
pub use error::{Classification, JobError};
pub use explain::{Explained, QueuePosition, Reason, ReasonCode, StartEstimate, WorkerCounts};
pub use failure_rate::{FailureRate, FailureRates};
pub use failures::{FailureGroup, Failures};
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
pub use request::{RequestLookup, StoredRequest};
pub use results::{ResultError, TypedJob};
pub use series::{SeriesPoint, TypeSeries};
pub use slow::{SlowJob, SlowJobs};
pub use stats::{Figures, JobStats, Percentiles};
pub use stuck::{StuckJob, StuckReason};
pub use submit::Submit;
#[cfg(feature = "telemetry")]
pub use telemetry::Telemetry;
pub use tokio_util::sync::CancellationToken;
pub use types::{TypeChangeError, TypeCounts, TypePause, TypeState};
#[cfg(feature = "openapi")]
pub use utoipa;
pub use worker::WorkerStatus;
