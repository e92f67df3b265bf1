//! [`AsyncEndpoints`]: the library's parts behind one handle, with their start and shutdown.

mod alerts;
mod audit;
mod bulk;
mod explain;
mod queries;
mod request;
mod types;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Store, StoreError,
    job::InvalidName,
    store::{CancelOutcome, JobLookup, RetryAs, RetryOutcome, WorkerId},
};
use axum::{Router, http::request::Parts};
use tokio::net::TcpListener;
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    acceptor::StoreAcceptor,
    alerts::{CountedStore, Engine, EngineParts, Plan},
    audit::Trail,
    bulk::Bulk,
    error::Builtin,
    fleet::{Fleet, Waiting, WaitingReason},
    health::{self, Check, Health, HealthReport, Sources},
    hub::{Follower, Hub, version},
    job_type::{Policy, Rules},
    middleware::Middleware,
    options::Options,
    owner::JobOwner,
    request::RedactionRule,
    series::SeriesCache,
    server,
    stats_cache::StatsCache,
    store_call::within,
    sync::Mutex,
    telemetry::{Measured, OutageLog, events},
    types::SharedControls,
    worker::{KeeperEnd, RegisteredType, Worker, WorkerParts, WorkerStatus, describe, supervise},
};

/// How long a scrape waits for the store's statistics.
#[cfg(feature = "telemetry")]
const SCRAPE_PATIENCE: Duration = Duration::from_secs(1);

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

/// The parts that the builder has checked.
pub(crate) struct Assembly {
    pub(crate) types: Vec<(JobName, Policy)>,
    pub(crate) routes: MakeRoutes,
    #[cfg(feature = "dashboard")]
    pub(crate) dashboard: MakeDashboard,
    pub(crate) owner: OwnerOf,
    pub(crate) registered: Vec<RegisteredType>,
    pub(crate) middlewares: Vec<Arc<dyn Middleware>>,
    pub(crate) measured: Measured,
    pub(crate) health: Vec<(String, Check)>,
    pub(crate) alerts: Option<Plan>,
    pub(crate) redaction: Option<RedactionRule>,
}

impl AsyncEndpoints {
    pub(crate) fn assemble(store: Arc<dyn Store>, options: Options, parts: Assembly) -> Self {
        let Assembly {
            types,
            routes,
            #[cfg(feature = "dashboard")]
            dashboard,
            owner,
            registered,
            middlewares,
            measured,
            health,
            alerts,
            redaction,
        } = parts;
        let cutoffs = types.iter().map(|(name, policy)| policy.cutoffs(name, &options)).collect();
        let depths = types.iter().map(|(name, policy)| (name.clone(), policy.queue_depth)).collect();
        let names: Vec<JobName> = types.into_iter().map(|(name, _)| name).collect();
        let store: Arc<dyn Store> = Arc::new(OutageLog::new(store));
        let (store, counts) = if alerts.is_some() { CountedStore::around(store) } else { (store, Arc::default()) };
        let store = measured.store(store);
        let id = WorkerId(measured.telemetry.take_instance_id().unwrap_or_else(Uuid::new_v4));
        let version = measured.telemetry.service_version().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        let info = describe(id, version);
        let measured = Arc::new(measured);
        let for_handlers = StoreAcceptor {
            store: store.clone(),
            measured: measured.clone(),
            options: options.clone(),
            stopping: None,
        };
        let controls = SharedControls::new(store.clone());
        let parts = WorkerParts {
            store: store.clone(),
            options: options.clone(),
            types: registered.into(),
            middlewares: middlewares.into(),
            observed: measured.running(),
            acceptor: Arc::new(for_handlers.clone()),
            controls: controls.clone(),
        };
        let worker = Worker::new(info, parts);
        let acceptor = StoreAcceptor { stopping: Some(worker.stopping().clone()), ..for_handlers };
        let (rules, defaults) = (Rules::default(), options.clone());
        let undeclared = move |name: &JobName| rules.resolve(&defaults).cutoffs(name, &defaults);
        let stats_cache = StatsCache::new(store.clone(), controls.clone(), cutoffs, undeclared);
        let declared = Arc::from(names.as_slice());
        let (stats, lease) = (&stats_cache, options.lease);
        let parts = EngineParts { stats, store: &store, controls: &controls, id, lease, declared, counts };
        let alerts = alerts.map(|plan| Engine::new(plan, parts, &measured));
        let sources = Sources {
            store: &store,
            stats: &stats_cache,
            controls: &controls,
            worker: worker.vitals(),
            options: &options,
            types: depths,
            alerts: alerts.as_ref().map(Engine::vitals),
        };
        let checks = health::checks(sources, health);
        let on_change = measured.health_changes(checks.iter().map(|(name, _)| name.as_str()));
        let health = Arc::new(Health::new(checks, worker.vitals().clone(), on_change));
        let statuses = Arc::downgrade(&health);
        measured.health_gauge(move |observe| {
            if let Some(health) = statuses.upgrade() {
                health.statuses().into_iter().for_each(|(check, status)| observe(check, status));
            }
        });
        let (cached, slots) = (Arc::downgrade(&stats_cache), Arc::downgrade(&worker));
        let decided = Arc::downgrade(&controls);
        measured.gauges(
            move || cached.upgrade()?.latest(),
            move |name| decided.upgrade().is_some_and(|controls| controls.latest().pause(name).is_some()),
            move || slots.upgrade().map(|worker| worker.status().slots),
        );
        Self(Arc::new(Inner {
            types: names.into_iter().map(|name| (name.to_string(), name)).collect(),
            worker,
            routes,
            #[cfg(feature = "dashboard")]
            dashboard,
            owner,
            trail: Trail::new(store.clone()),
            bulk: Bulk::new(store.clone(), id, options.lease),
            store,
            options,
            hub: Arc::default(),
            background: Mutex::default(),
            started: AtomicBool::new(false),
            fleet: Fleet::default(),
            controls,
            stats_cache,
            series: SeriesCache::default(),
            measured,
            acceptor,
            health,
            alerts,
            redaction,
        }))
    }

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

    /// Serves HTTP and runs jobs until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), then drains.
    ///
    /// From the stop request on, `/health/ready` answers 503. After [`Options::shutdown_delay`] the drain begins, and takes at
    /// most [`Options::shutdown`]. No jobs are accepted or started, and jobs can still be read. Running
    /// attempts may end, and the rest is released without using up a retry. A second signal ends the drain at once.
    ///
    /// When this returns, the worker has released the store. The store is closed with the last clone of these endpoints,
    /// or with the runtime.
    ///
    /// Dropping the future drains the worker in the background.
    ///
    /// # Errors
    ///
    /// Fails if the endpoints were started before, or if the worker's thread cannot be created.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<()> {
        let (_stop, keeper) = self.start()?;
        let (alerts, bulk) = (self.start_alerts(), self.start_bulk_runner());
        let worker = &self.0.worker;
        server::serve(listener, app, &self.0.options, worker.drained().clone(), worker.closed().clone()).await;
        worker.end(keeper).await;
        tokio::join!(alerts, bulk);
        Ok(())
    }

    /// Runs jobs until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), then drains as [`serve`](Self::serve) does. For a
    /// process without HTTP.
    pub async fn run(&self) -> io::Result<()> {
        let (_stop, keeper) = self.start()?;
        let (alerts, bulk) = (self.start_alerts(), self.start_bulk_runner());
        self.0.worker.drained().cancelled().await;
        self.0.worker.end(keeper).await;
        tokio::join!(alerts, bulk);
        Ok(())
    }

    /// Requests a drain, as SIGTERM does. [`serve`](Self::serve) and [`run`](Self::run) then return.
    ///
    /// If neither runs, because the routes are in a server of your own, this ends waiting requests and streams.
    pub fn shutdown(&self) {
        self.0.worker.stop();
        if !self.0.started.load(Ordering::Acquire) {
            self.0.worker.begin_drain();
            self.0.worker.drained().cancel();
        }
    }

    /// Runs jobs until none is runnable. For tests.
    ///
    /// On a [`MemoryStore`](crate::MemoryStore) with a manual clock, delayed jobs become runnable when the test advances
    /// the clock.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobStatus, JobType, JobLookup, MemoryStore};
    /// use async_endpoints_testkit::ManualClock;
    ///
    /// const FLAKY: JobType<(), ()> = JobType::new("Flaky");
    ///
    /// async fn second_time_lucky(ctx: JobContext<()>) -> Result<(), JobError> {
    ///     if ctx.attempt() == 1 { Err("not yet")? } else { Ok(()) }
    /// }
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let store = MemoryStore::with_clock(clock.clone());
    /// let endpoints = AsyncEndpoints::builder(store).handler(FLAKY, second_time_lucky).build()?;
    /// let id = endpoints.submit(FLAKY, ()).await?.job.id;
    /// endpoints.run_until_idle().await?; // fails, and is retried within two seconds
    /// clock.advance(Duration::from_secs(2));
    /// endpoints.run_until_idle().await?;
    /// let JobLookup::Found(job) = endpoints.job(id).await? else { panic!("not found") };
    /// assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
    /// # Ok(()) }
    /// ```
    pub async fn run_until_idle(&self) -> Result<(), StoreError> {
        self.0.worker.run_until_idle().await
    }

    /// Returns the current state of a job.
    pub async fn job(&self, id: JobId) -> Result<JobLookup, StoreError> {
        within(self.0.store.get(id)).await
    }

    /// Waits until a job is terminal, at most for `patience` or until this process stops, and returns it.
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<JobLookup, StoreError> {
        self.wait_until(id, patience, |job| job.status.is_terminal()).await
    }

    /// Waits until a job is `done`, at most for `patience` or until this process stops, and returns it.
    pub(crate) async fn wait_until(
        &self,
        id: JobId,
        patience: Duration,
        done: impl Fn(&JobView) -> bool,
    ) -> Result<JobLookup, StoreError> {
        let waits = |lookup: &JobLookup| matches!(lookup, JobLookup::Found(job) if !done(job));
        let follower = self.follow(id);
        let mut lookup = self.job(id).await?;
        let Some(mut follower) = follower else { return Ok(lookup) };
        follower.saw(&lookup);
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        while waits(&lookup) {
            tokio::select! {
                changed = follower.changed(version(&lookup)) => lookup = Arc::unwrap_or_clone(changed),
                () = &mut over => break,
                () = self.0.worker.stopping().cancelled() => break,
            }
        }
        Ok(lookup)
    }

    /// Follows a job. Returns `None` if there are too many followers.
    pub(crate) fn follow(&self, id: JobId) -> Option<Follower> {
        self.start_background();
        self.0.hub.follow(id)
    }

    /// Returns a number that grows when any job may have changed.
    #[cfg(feature = "dashboard")]
    pub(crate) fn job_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.start_background();
        self.0.hub.changes()
    }

    /// Cancels a waiting job, or requests the cancellation of a running one.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        let canceled = within(self.0.store.cancel(id, &Builtin::Canceled.record(None))).await?;
        if matches!(canceled, CancelOutcome::Requested(_)) {
            // Workers of other processes learn of the request when they renew the lease.
            self.0.worker.stop_canceled(id);
        }
        Ok(canceled)
    }

    /// Creates a new job from a failed or canceled one. A repeated call returns the same new job.
    pub async fn retry(&self, id: JobId) -> Result<RetryOutcome, StoreError> {
        // The new job's type is not known before it is stored.
        let sending = self.measured().send(None);
        let new = RetryAs { id: JobId::random(), trace: sending.stored() };
        let retried = sending.run(within(self.0.store.retry(id, &new))).await;
        sending.retried(retried.as_ref());
        retried
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

    /// Whether the drain has begun, which is [`Options::shutdown_delay`] after the stop request.
    pub fn is_shutting_down(&self) -> bool {
        self.0.worker.is_stopping()
    }

    /// Waits until the drain is over.
    pub(crate) async fn drained(&self) {
        self.0.worker.drained().cancelled().await;
    }

    /// Returns why a job waits, as its JSON document says, or `None` if it does not wait. The list of workers and the pauses
    /// behind it are one to two seconds old.
    pub async fn waiting(&self, job: &JobView) -> Option<Waiting> {
        let worker = &self.0.worker;
        let runs_here =
            self.0.started.load(Ordering::Acquire) && worker.has_handler(&job.name) && !worker.is_stopping();
        if !matches!(job.status, JobStatus::Queued | JobStatus::Scheduled) {
            return None;
        }
        let control = self.type_control(&job.name).await;
        let (lease, limit) = (self.options().lease, control.per_process);
        let mut waiting = self.0.fleet.waiting(&self.0.store, job, lease, limit).await?;
        // The list of workers may be older than this process.
        if runs_here && waiting.reason == WaitingReason::NoWorker {
            waiting.reason = WaitingReason::Queued;
        }
        if waiting.reason != WaitingReason::Delayed
            && let Some(pause) = control.pause
        {
            waiting = Waiting { reason: WaitingReason::Paused, until: pause.until, ..waiting };
        }
        Some(waiting)
    }

    /// Returns a job name, without an allocation for declared types.
    pub(crate) fn job_name(&self, name: &str) -> Result<JobName, InvalidName> {
        self.0.types.get(name).cloned().map_or_else(|| JobName::new(name), Ok)
    }

    /// Starts the worker. It drains when the guard is dropped.
    fn start(&self) -> io::Result<(DropGuard, KeeperEnd)> {
        if self.0.started.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("these endpoints were started before: build new ones to start again"));
        }
        self.start_background();
        self.0.health.start();
        let keeper = self.0.worker.start()?;
        Ok((self.0.worker.stopping().clone().drop_guard(), keeper))
    }

    /// Starts the background tasks unless they run already.
    ///
    /// They end with the last clone of these endpoints, or with the runtime that they were started on. In that case the
    /// next call starts them again.
    fn start_background(&self) {
        let mut background = self.0.background.lock();
        if background.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (hub, store, worker) = (self.0.hub.clone(), self.0.store.clone(), self.0.worker.clone());
        let controls = self.0.controls.clone();
        // A scrape refreshes the cache itself; other readers of metrics cannot.
        let is_read_elsewhere = self.0.measured.telemetry.has_other_readers();
        let stats_cache = is_read_elsewhere.then(|| self.0.stats_cache.clone());
        *background = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let on_work = |name: Option<&JobName>| {
                if name.is_none_or(|name| worker.has_handler(name)) {
                    worker.wake();
                }
            };
            tokio::join!(
                supervise("hub", worker.restarts(), || hub.listen(&*store, on_work)),
                supervise("hub publish", worker.restarts(), || hub.publish_changes(&*store)),
                supervise("hub logs", worker.restarts(), || hub.publish_lines(&*store)),
                supervise("types", worker.restarts(), || {
                    controls.follow(|| worker.wake(), |error| events::store_failed("document", error))
                }),
                supervise("statistics", worker.restarts(), || async {
                    if let Some(cache) = &stats_cache {
                        cache.keep_fresh().await;
                    }
                }),
            );
        })));
    }
}

impl std::fmt::Debug for AsyncEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncEndpoints").field("worker", &self.worker_status()).finish_non_exhaustive()
    }
}
