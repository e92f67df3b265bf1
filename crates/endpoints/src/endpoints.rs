//! The assembled product: what an application holds, and how its parts start and stop together.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobView, Store, StoreError,
    job::InvalidName,
    store::{Cancel, Lookup},
};
use axum::Router;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    builder::Builder,
    endpoint::Endpoint,
    error::Builtin,
    fleet::Fleet,
    http,
    hub::{Follower, Hub, version},
    job_type::JobType,
    middleware::Middleware,
    options::Options,
    submit::{Submit, within},
    telemetry::events,
    worker::{Kind, Worker, WorkerStatus, supervise},
};

/// Asynchronous endpoints and the workers behind them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct AsyncEndpoints(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    options: Options,
    types: HashMap<String, JobName>,
    endpoints: Vec<Endpoint>,
    worker: Arc<Worker>,
    works: bool,
    hub: Arc<Hub>,
    hub_started: OnceLock<()>,
    started: AtomicBool,
    fleet: Fleet,
    shutting_down: CancellationToken,
}

impl AsyncEndpoints {
    /// Begins with the store that jobs live in.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(Arc::new(store))
    }

    pub(crate) fn assemble(
        store: Arc<dyn Store>,
        options: Options,
        types: Vec<JobName>,
        endpoints: Vec<Endpoint>,
        kinds: Vec<Kind>,
        middlewares: Vec<Arc<dyn Middleware>>,
    ) -> Self {
        let works = !kinds.is_empty();
        Self(Arc::new(Inner {
            worker: Worker::new(store.clone(), options.clone(), kinds.into(), middlewares.into()),
            works,
            types: types.into_iter().map(|name| (name.to_string(), name)).collect(),
            endpoints,
            store,
            options,
            hub: Arc::default(),
            hub_started: OnceLock::new(),
            started: AtomicBool::new(false),
            fleet: Fleet::default(),
            shutting_down: CancellationToken::new(),
        }))
    }

    /// The routes that accept jobs, for any router.
    pub fn submit_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::submit_routes(self)
    }

    /// The routes that follow and cancel jobs, for any router.
    pub fn job_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::job_routes(self)
    }

    /// Serves HTTP and works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown); then drains both within
    /// `Options::shutdown`: nothing more is accepted or started, jobs can still be read, running attempts may end,
    /// and those that do not are given back without using up a retry. A second signal ends the drain at once.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<()> {
        let stop_http = CancellationToken::new();
        let serving = http::serve(listener, app, stop_http.clone());
        tokio::pin!(serving);
        self.start_worker()?;
        tokio::select! {
            served = &mut serving => {
                self.stop_worker(self.0.options.shutdown).await;
                return served;
            }
            () = self.stop_requested() => {}
        }
        tokio::select! {
            served = &mut serving => return served,
            () = self.stop_worker(self.0.options.shutdown) => {}
        }
        stop_http.cancel();
        serving.await
    }

    /// Works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), and drains; for a process without HTTP.
    pub async fn run(&self) -> io::Result<()> {
        self.start_worker()?;
        self.stop_requested().await;
        self.stop_worker(self.0.options.shutdown).await;
        Ok(())
    }

    /// Asks [`serve`](Self::serve) or [`run`](Self::run) to drain and return, as SIGTERM does.
    pub fn shutdown(&self) {
        self.0.shutting_down.cancel();
    }

    /// Runs every job that is runnable now, and those that follow from them, until none is; for tests on a
    /// [`MemoryStore`](crate::MemoryStore), where delayed jobs become runnable when the test moves its clock.
    pub async fn run_until_idle(&self) -> Result<(), StoreError> {
        self.0.worker.again().run_until_idle().await
    }

    /// Submits a job from code. Await it, or first set what is special about it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use async_endpoints::{AsyncEndpoints, JobType, MemoryStore};
    /// # const RESIZE: JobType<String, u32> = JobType::new("Resize");
    /// # async fn submit(endpoints: &AsyncEndpoints) -> Result<(), async_endpoints::SubmitError> {
    /// let accepted = endpoints.submit(RESIZE, "photo.jpg".to_owned()).await?;
    /// let later = endpoints.submit(RESIZE, "photo.jpg".to_owned()).delay(Duration::from_secs(60)).await?;
    /// # Ok(()) }
    /// ```
    pub fn submit<Req: Serialize, Res>(&self, job: JobType<Req, Res>, request: Req) -> Submit<'_> {
        Submit::new(self, job.name(), job.rules.resolve(&self.0.options), &request)
    }

    /// A job as it is now.
    pub async fn job(&self, id: JobId) -> Result<Lookup, StoreError> {
        within(self.0.store.get(id)).await
    }

    /// A job as soon as it is terminal, or as it is when `patience` is over or this process stops.
    pub async fn wait(&self, id: JobId, patience: Duration) -> Result<Lookup, StoreError> {
        self.wait_until(id, patience, |job| job.status.is_terminal()).await
    }

    /// A job as soon as it is `done`, or as it is when `patience` is over or this process stops.
    pub(crate) async fn wait_until(
        &self,
        id: JobId,
        patience: Duration,
        done: impl Fn(&JobView) -> bool,
    ) -> Result<Lookup, StoreError> {
        let waits = |lookup: &Lookup| matches!(lookup, Lookup::Found(job) if !done(job));
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
                () = self.0.shutting_down.cancelled() => break,
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
    pub async fn cancel(&self, id: JobId) -> Result<Cancel, StoreError> {
        within(self.0.store.cancel(id, &Builtin::Canceled.record(None))).await
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
        self.0.shutting_down.is_cancelled()
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.0.endpoints
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.0.fleet
    }

    /// A name, without making it anew for the types that were declared.
    pub(crate) fn job_name(&self, name: &str) -> Result<JobName, InvalidName> {
        self.0.types.get(name).cloned().map_or_else(|| JobName::new(name), Ok)
    }

    fn start_worker(&self) -> io::Result<()> {
        if self.0.started.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("these endpoints were started before; build new ones to start again"));
        }
        self.start_hub();
        if self.0.works { self.0.worker.start() } else { Ok(()) }
    }

    async fn stop_worker(&self, within: Duration) {
        self.shutdown();
        events::stopping(within);
        if self.0.works {
            tokio::select! {
                () = self.0.worker.stop(within) => {}
                // Whoever asks twice does not want to wait.
                () = async { http::stop_signal().await; self.0.worker.hurry(); std::future::pending().await } => {}
            }
        }
    }

    /// Starts to listen to hints, once. Ends with the runtime.
    fn start_hub(&self) {
        self.0.hub_started.get_or_init(|| {
            let (listening, telling) = (self.0.clone(), self.0.clone());
            tokio::spawn(async move {
                let worker = &listening.worker;
                let work = |name: Option<&JobName>| {
                    if name.is_none_or(|name| worker.takes(name)) {
                        worker.wake();
                    }
                };
                supervise("hub", worker.restarts(), || listening.hub.listen(&*listening.store, work)).await;
            });
            tokio::spawn(async move {
                supervise("hub tell", telling.worker.restarts(), || telling.hub.tell(&*telling.store)).await;
            });
        });
    }

    async fn stop_requested(&self) {
        tokio::select! {
            () = http::stop_signal() => {}
            () = self.0.shutting_down.cancelled() => {}
        }
    }
}

impl std::fmt::Debug for AsyncEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncEndpoints")
            .field("endpoints", &self.0.endpoints)
            .field("worker", &self.worker_status())
            .finish_non_exhaustive()
    }
}
