//! [`AsyncEndpoints`]: the library's parts behind one handle, its routers, and its state.
//!
//! | file | contents |
//! |---|---|
//! | `assembly` | makes the handle of the parts that the builder has checked |
//! | `lifecycle` | start, background tasks and shutdown |
//! | `jobs` | one job: read, wait, follow, cancel, retry |
//! | `queries` | all jobs: statistics, workers, slow, stuck and failed jobs |
//! | `explain`, `request` | why a job is in its state, and its request |
//! | `types`, `bulk`, `alerts`, `audit` | what operators see and change |

mod alerts;
mod assembly;
mod audit;
mod bulk;
mod explain;
mod jobs;
mod lifecycle;
mod queries;
#[cfg(feature = "dashboard")]
mod recent;
mod request;
mod types;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use async_endpoints_core::{JobName, Store};
use axum::{Router, http::request::Parts};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::assembly::Assembly;
#[cfg(feature = "dashboard")]
pub(crate) use self::recent::RecentWorkers;
use crate::{
    acceptor::StoreAcceptor,
    alerts::Engine,
    audit::Trail,
    bulk::Bulk,
    fleet::Fleet,
    health::{Health, HealthReport},
    hub::Hub,
    options::Options,
    owner::JobOwner,
    request::RedactionRule,
    series::SeriesCache,
    stats_cache::StatsCache,
    sync::Mutex,
    telemetry::Measured,
    types::SharedControls,
    worker::{Worker, WorkerStatus},
};

/// How long a scrape waits for the store's statistics.
#[cfg(feature = "telemetry")]
const SCRAPE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Asynchronous endpoints and the worker behind them. Clones are cheap and share one state.
#[derive(Clone)]
pub struct AsyncEndpoints(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    options: Options,
    types: HashMap<String, JobName>,
    routes: MakeRoutes,
    #[cfg(feature = "dashboard")]
    dashboard: MakeDashboard,
    owner: OwnerOf,
    worker: Arc<Worker>,
    hub: Arc<Hub>,
    background: Mutex<Option<AbortOnDropHandle<()>>>,
    started: AtomicBool,
    fleet: Fleet,
    controls: Arc<SharedControls>,
    stats_cache: Arc<StatsCache>,
    series: SeriesCache,
    measured: Arc<Measured>,
    acceptor: StoreAcceptor,
    health: Arc<Health>,
    alerts: Option<Arc<Engine>>,
    redaction: Option<RedactionRule>,
    trail: Arc<Trail>,
    bulk: Arc<Bulk>,
}

/// A group of routes that an application mounts together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteGroup {
    Submit,
    Jobs,
    Monitoring,
}

/// Makes the router of a group. A function, so that this module does not depend on the HTTP layer.
pub(crate) type MakeRoutes = Box<dyn Fn(&AsyncEndpoints, RouteGroup) -> Router + Send + Sync>;

/// Makes the router of the dashboard. A function, like [`MakeRoutes`].
#[cfg(feature = "dashboard")]
pub(crate) type MakeDashboard = Box<dyn Fn(&AsyncEndpoints) -> Router + Send + Sync>;

/// Returns the owner of a request's jobs. A function, like [`MakeRoutes`].
pub(crate) type OwnerOf = Box<dyn Fn(&Parts) -> Option<JobOwner> + Send + Sync>;

impl AsyncEndpoints {
    /// Returns the routes that accept jobs.
    pub fn submit_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Submit)
    }

    /// Returns the routes that list, follow, cancel and retry jobs, and `/openapi.json`.
    ///
    /// Mount them under the same prefix as the [submit routes](Self::submit_routes), or set [`Options::base_path`].
    pub fn job_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Jobs)
    }

    /// Returns the monitoring routes: `/health`, `/health/ready`, `/health/live`, `/metrics/jobs`, the routes below `/ops`, and
    /// `/metrics` if [telemetry](crate::Builder::telemetry) was set up.
    ///
    /// [`Builder::access`](crate::Builder::access) sets their access policy.
    pub fn monitoring_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Monitoring)
    }

    /// Returns the pages for operators below `/dashboard`. They need the feature `dashboard`.
    ///
    /// [`Builder::access`](crate::Builder::access) sets their access policy. Their links are relative, so they work below any
    /// prefix and behind any proxy.
    #[cfg(feature = "dashboard")]
    pub fn dashboard_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        (self.0.dashboard)(self).with_state(())
    }

    /// The owner of jobs that are submitted for this request.
    pub(crate) fn owner_of(&self, request: &Parts) -> Option<JobOwner> {
        (self.0.owner)(request)
    }

    fn routes<S: Clone + Send + Sync + 'static>(&self, group: RouteGroup) -> Router<S> {
        (self.0.routes)(self, group).with_state(())
    }

    /// Returns the text of `/metrics`, or `None` if there is no such route.
    #[cfg(feature = "telemetry")]
    pub(crate) async fn scrape(&self, format: crate::telemetry::Format) -> Option<Result<String, String>> {
        let telemetry = Some(&self.0.measured.telemetry).filter(|telemetry| telemetry.has_exposition())?;
        // If the store does not answer in time, its gauges have older values or none.
        let _ = tokio::time::timeout(SCRAPE_PATIENCE, self.0.stats_cache.refresh()).await;
        // Runs the application's callbacks and writes thousands of lines, so it must not block a runtime thread.
        let telemetry = telemetry.clone();
        let scraped = tokio::task::spawn_blocking(move || telemetry.exposition(format)).await;
        Some(scraped.map_err(|panic| panic.to_string()).and_then(|scraped| scraped.map_err(|error| error.to_string())))
    }

    /// Whether there is a `/metrics` route.
    pub(crate) fn is_scraped(&self) -> bool {
        self.0.measured.telemetry.has_exposition()
    }

    /// Returns the last results of all health checks, as `/health` shows them. Runs no check and makes no store call.
    ///
    /// ```
    /// # use async_endpoints::{AsyncEndpoints, MemoryStore};
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build()?;
    /// for check in endpoints.health_report().await.checks {
    ///     println!("{} is {}", check.name, check.status);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn health_report(&self) -> HealthReport {
        self.0.health.all().await
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn measured(&self) -> &Measured {
        &self.0.measured
    }

    pub(crate) fn acceptor(&self) -> &StoreAcceptor {
        &self.0.acceptor
    }

    /// Returns the state of this process's worker.
    pub fn worker_status(&self) -> WorkerStatus {
        self.0.worker.status()
    }

    /// Returns the settings.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }
}

impl std::fmt::Debug for AsyncEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncEndpoints").field("worker", &self.worker_status()).finish_non_exhaustive()
    }
}
