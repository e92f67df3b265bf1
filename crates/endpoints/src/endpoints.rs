//! The assembled product: what an application holds, and how its parts start and stop together.

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
    JobId, JobName, JobView, Store, StoreError,
    job::{InvalidName, TraceContext},
    store::{CancelOutcome, JobLookup, RetryAs, RetryOutcome, StatsQuery, WorkerId},
};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    error::Builtin,
    fleet::{Fleet, Reason, Waiting},
    hub::{Follower, Hub, version},
    job_type::{Policy, Rules},
    middleware::Middleware,
    options::Options,
    server,
    stats::{self, JobStats},
    stats_cache::StatsCache,
    store_call::within,
    sync::Mutex,
    telemetry::{Format, Measured},
    worker::{RegisteredType, Worker, WorkerStatus, supervise},
};

/// How long a scrape waits for the store's statistics.
const SCRAPE_WAITS: Duration = Duration::from_secs(1);

/// Asynchronous endpoints and the workers behind them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct AsyncEndpoints(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    options: Options,
    types: HashMap<String, JobName>,
    routes: MakeRoutes,
    worker: Arc<Worker>,
    hub: Arc<Hub>,
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
    started: AtomicBool,
    fleet: Fleet,
    stats_cache: Arc<StatsCache>,
    measured: Option<Measured>,
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

/// What the builder found to fit together.
pub(crate) struct Assembly {
    pub(crate) types: Vec<(JobName, Policy)>,
    pub(crate) routes: MakeRoutes,
    pub(crate) registered: Vec<RegisteredType>,
    pub(crate) middlewares: Vec<Arc<dyn Middleware>>,
    pub(crate) measured: Option<Measured>,
}

impl AsyncEndpoints {
    pub(crate) fn assemble(store: Arc<dyn Store>, options: Options, parts: Assembly) -> Self {
        let Assembly { types, routes, registered, mut middlewares, measured } = parts;
        let cutoffs = types.iter().map(|(name, policy)| policy.cutoffs(name, &options)).collect();
        let names: Vec<JobName> = types.into_iter().map(|(name, _)| name).collect();
        let store = match &measured {
            Some(measured) => measured.store(store),
            None => store,
        };
        middlewares.splice(0..0, measured.as_ref().map(Measured::middleware));
        let id = measured.as_ref().and_then(|measured| measured.telemetry.take_instance_id());
        let id = WorkerId(id.unwrap_or_else(Uuid::new_v4));
        let worker = Worker::new(id, store.clone(), options.clone(), registered.into(), middlewares.into());
        let (rules, defaults) = (Rules::default(), options.clone());
        let others = move |name: &JobName| rules.resolve(&defaults).cutoffs(name, &defaults);
        let stats_cache = StatsCache::new(store.clone(), cutoffs, others);
        if let Some(measured) = &measured {
            let (cached, slots) = (Arc::downgrade(&stats_cache), Arc::downgrade(&worker));
            measured.gauges(
                move || cached.upgrade()?.latest(),
                move || slots.upgrade().map(|worker| worker.status().slots),
            );
        }
        Self(Arc::new(Inner {
            types: names.into_iter().map(|name| (name.to_string(), name)).collect(),
            worker,
            routes,
            store,
            options,
            hub: Arc::default(),
            listening: Mutex::default(),
            started: AtomicBool::new(false),
            fleet: Fleet::default(),
            stats_cache,
            measured,
        }))
    }

    /// The routes that accept jobs, for any router.
    pub fn submit_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Submit)
    }

    /// The routes that list, follow, cancel and retry jobs, and `/openapi.json`, for any router. Mount them under the same
    /// prefix as the [submit routes](Self::submit_routes), or say in [`Options::base_path`] where they are.
    pub fn job_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Jobs)
    }

    /// The routes of monitoring, for any router: `/metrics/jobs`, and `/metrics` if [telemetry](Builder::telemetry) was set up
    /// here. Who may use them is what [`Builder::access`] says.
    pub fn monitoring_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.routes(RouteGroup::Monitoring)
    }

    fn routes<S: Clone + Send + Sync + 'static>(&self, group: RouteGroup) -> Router<S> {
        (self.0.routes)(self, group).with_state(())
    }

    /// Serves HTTP and works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown); then drains both within
    /// `Options::shutdown`: nothing more is accepted or started, jobs can still be read, running attempts may end,
    /// and those that do not are given back without using up a retry. A second signal ends the drain at once.
    ///
    /// Dropping the future stops the worker in the same way, in the background.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<()> {
        let _stop = self.start()?;
        let worker = &self.0.worker;
        server::serve(listener, app, &self.0.options, worker.drained().clone(), worker.closed().clone()).await;
        worker.closed().cancel();
        Ok(())
    }

    /// Works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), and drains; for a process without HTTP.
    pub async fn run(&self) -> io::Result<()> {
        let _stop = self.start()?;
        self.0.worker.drained().cancelled().await;
        self.0.worker.closed().cancel();
        Ok(())
    }

    /// Asks [`serve`](Self::serve) or [`run`](Self::run) to drain and return, as SIGTERM does. Where neither runs and the
    /// routes are in a server of your own, this ends waits and streams, so that the server can end.
    pub fn shutdown(&self) {
        self.0.worker.stop();
        if !self.0.started.load(Ordering::Acquire) {
            self.0.worker.drained().cancel();
        }
    }

    /// Runs every job that is runnable now, and those that follow from them, until none is; for tests on a
    /// [`MemoryStore`](crate::MemoryStore), where delayed jobs become runnable when the test moves its clock.
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
    /// let JobLookup::Found(job) = endpoints.job(id).await? else { panic!("it is there") };
    /// assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
    /// # Ok(()) }
    /// ```
    pub async fn run_until_idle(&self) -> Result<(), StoreError> {
        self.0.worker.run_until_idle().await
    }

    /// A job as it is now.
    pub async fn job(&self, id: JobId) -> Result<JobLookup, StoreError> {
        within(self.0.store.get(id)).await
    }

    /// A job as soon as it is terminal, or as it is when `patience` is over or this process stops.
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<JobLookup, StoreError> {
        self.wait_until(id, patience, |job| job.status.is_terminal()).await
    }

    /// A job as soon as it is `done`, or as it is when `patience` is over or this process stops.
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
                news = follower.changed(version(&lookup)) => lookup = Arc::unwrap_or_clone(news),
                () = &mut over => break,
                () = self.0.worker.stopping().cancelled() => break,
            }
        }
        Ok(lookup)
    }

    /// Follows a job; none if too many are followed.
    pub(crate) fn follow(&self, id: JobId) -> Option<Follower> {
        self.start_hub();
        self.0.hub.follow(id)
    }

    /// Cancels a job that does not run, or asks its worker to stop it.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        let canceled = within(self.0.store.cancel(id, &Builtin::Canceled.record(None))).await?;
        if matches!(canceled, CancelOutcome::Requested(_)) {
            // Other workers hear of it when they renew.
            self.0.worker.stop_canceled(id);
        }
        Ok(canceled)
    }

    /// Makes a new job out of one that failed or was canceled, once: a repeat finds the same new job.
    pub async fn retry(&self, id: JobId) -> Result<RetryOutcome, StoreError> {
        self.retry_traced(id, None).await
    }

    pub(crate) async fn retry_traced(
        &self,
        id: JobId,
        trace: Option<TraceContext>,
    ) -> Result<RetryOutcome, StoreError> {
        within(self.0.store.retry(id, &RetryAs { id: JobId::random(), trace })).await
    }

    /// What the fleet did in a window, up to six hours back, and has now: from the store's own counts, so that it is exact,
    /// survives restarts, and is the same from every process. One call of the store.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobContext, JobType, MemoryStore};
    /// # const RESIZE: JobType<(), ()> = JobType::new("Resize");
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let endpoints = AsyncEndpoints::builder(MemoryStore::new()).handler(RESIZE, async |_: JobContext<()>| Ok(())).build()?;
    /// # endpoints.submit(RESIZE, ()).await?;
    /// # endpoints.run_until_idle().await?;
    /// let stats = endpoints.stats(Duration::from_secs(10 * 60)).await?;
    /// assert_eq!(stats.job_types["Resize"].completed_jobs, 1);
    /// assert!(stats.total.error_rate < 5.0 && stats.total.processing_time.p99.is_some());
    /// # Ok(()) }
    /// ```
    pub async fn stats(&self, window: Duration) -> Result<JobStats, StoreError> {
        // Which minutes a window has only the store's clock can say: all that it keeps are asked for.
        let query = StatsQuery { since_minute: Some(0), cutoffs: self.0.stats_cache.cutoffs().to_vec() };
        let stats = within(self.0.store.stats(&query)).await?;
        Ok(JobStats::of(&stats, window, self.0.types.values()))
    }

    /// The same of the last hour, at most five seconds old, however many ask.
    pub(crate) async fn sampled_stats(&self) -> Result<JobStats, StoreError> {
        Ok(JobStats::of(&*self.0.stats_cache.refresh().await?, stats::HOUR, self.0.types.values()))
    }

    /// What `/metrics` shows, or why it cannot be had; none if there is nothing.
    pub(crate) async fn scrape(&self, format: Format) -> Option<Result<String, String>> {
        let telemetry = &self.0.measured.as_ref().filter(|measured| measured.telemetry.has_exposition())?.telemetry;
        // Without an answer of the store in time, its gauges have older values or none.
        let _ = tokio::time::timeout(SCRAPE_WAITS, self.0.stats_cache.refresh()).await;
        // Callbacks, the application's too, and a page for each of many series: nothing for a thread that drives others.
        let telemetry = telemetry.clone();
        let scraped = tokio::task::spawn_blocking(move || telemetry.exposition(format)).await;
        Some(scraped.map_err(|panic| panic.to_string()).and_then(|scraped| scraped.map_err(|error| error.to_string())))
    }

    /// Whether `/metrics` has something to show.
    pub(crate) fn is_scraped(&self) -> bool {
        self.0.measured.as_ref().is_some_and(|measured| measured.telemetry.has_exposition())
    }

    pub(crate) fn measured(&self) -> Option<&Measured> {
        self.0.measured.as_ref()
    }

    /// What the worker of this process does.
    pub fn worker_status(&self) -> WorkerStatus {
        self.0.worker.status()
    }

    /// The settings.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Whether a stop was asked for.
    pub fn is_shutting_down(&self) -> bool {
        self.0.worker.is_stopping()
    }

    /// Fires when the drain is over.
    pub(crate) async fn gone(&self) {
        self.0.worker.drained().cancelled().await;
    }

    /// Why a job waits; none if it does not. What this process works on, it need not ask the fleet about.
    pub(crate) async fn waiting(&self, job: &JobView) -> Option<Waiting> {
        let worker = &self.0.worker;
        let works = self.0.started.load(Ordering::Acquire) && worker.has_handler(&job.name) && !worker.is_stopping();
        let mut waiting = self.0.fleet.waiting(&self.0.store, job).await?;
        if works && waiting.reason == Reason::NoWorker {
            waiting.reason = Reason::Queued;
        }
        Some(waiting)
    }

    /// A name, without making it anew for the types that were declared.
    pub(crate) fn job_name(&self, name: &str) -> Result<JobName, InvalidName> {
        self.0.types.get(name).cloned().map_or_else(|| JobName::new(name), Ok)
    }

    /// Starts the worker, which stops when the guard is dropped.
    fn start(&self) -> io::Result<DropGuard> {
        if self.0.started.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("these endpoints were started before; build new ones to start again"));
        }
        self.start_hub();
        self.0.worker.start()?;
        Ok(self.0.worker.stopping().clone().drop_guard())
    }

    /// Starts to listen to hints, unless somebody listens already. Ends with the last of these endpoints, and with the
    /// runtime that it was started on; then it is started again when it is needed.
    fn start_hub(&self) {
        let mut listening = self.0.listening.lock();
        if listening.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (hub, store, worker) = (self.0.hub.clone(), self.0.store.clone(), self.0.worker.clone());
        // A scrape refreshes the cache itself; other readers of metrics cannot.
        let is_read_elsewhere = self.0.measured.as_ref().is_some_and(|measured| measured.telemetry.has_other_readers());
        let stats_cache = is_read_elsewhere.then(|| self.0.stats_cache.clone());
        *listening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let work = |name: Option<&JobName>| {
                if name.is_none_or(|name| worker.has_handler(name)) {
                    worker.wake();
                }
            };
            tokio::join!(
                supervise("hub", worker.restarts(), || hub.listen(&*store, work)),
                supervise("hub publish", worker.restarts(), || hub.publish_changes(&*store)),
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
