//! The assembled product: what an application holds, and how its parts start and stop together.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, JobView, Store, StoreError,
    job::{InvalidName, TraceContext},
    store::{Cancel, Lookup, Retry, RetryAs},
};
use axum::Router;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::{sync::DropGuard, task::AbortOnDropHandle};

use crate::{
    builder::Builder,
    endpoint::Declared,
    error::Builtin,
    fleet::{Fleet, Reason, Waiting},
    http::{self, Face},
    hub::{Follower, Hub, version},
    job_type::JobType,
    middleware::Middleware,
    options::Options,
    submit::{Submit, within},
    worker::{Kind, Worker, WorkerStatus, supervise},
};

/// Asynchronous endpoints and the workers behind them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct AsyncEndpoints(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    options: Options,
    types: HashMap<String, JobName>,
    endpoints: Vec<Declared>,
    face: Face,
    worker: Arc<Worker>,
    hub: Arc<Hub>,
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
    started: AtomicBool,
    fleet: Fleet,
}

/// What the builder found to fit together.
pub(crate) struct Assembly {
    pub(crate) types: Vec<JobName>,
    pub(crate) endpoints: Vec<Declared>,
    pub(crate) face: Face,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) middlewares: Vec<Arc<dyn Middleware>>,
}

impl AsyncEndpoints {
    /// Begins with the store that jobs live in.
    pub fn builder(store: impl Store) -> Builder {
        Builder::new(Arc::new(store))
    }

    pub(crate) fn assemble(store: Arc<dyn Store>, options: Options, parts: Assembly) -> Self {
        let Assembly { types, endpoints, face, kinds, middlewares } = parts;
        Self(Arc::new(Inner {
            worker: Worker::new(store.clone(), options.clone(), kinds.into(), middlewares.into()),
            types: types.into_iter().map(|name| (name.to_string(), name)).collect(),
            endpoints,
            face,
            store,
            options,
            hub: Arc::default(),
            listening: Mutex::default(),
            started: AtomicBool::new(false),
            fleet: Fleet::default(),
        }))
    }

    /// The routes that accept jobs, for any router.
    pub fn submit_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::submit_routes(self)
    }

    /// The routes that list, follow, cancel and retry jobs, and `/openapi.json`, for any router. Mount them under the same
    /// prefix as the [submit routes](Self::submit_routes), or say in [`Options::base_path`] where they are.
    pub fn job_routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        http::job_routes(self)
    }

    /// Serves HTTP and works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown); then drains both within
    /// `Options::shutdown`: nothing more is accepted or started, jobs can still be read, running attempts may end,
    /// and those that do not are given back without using up a retry. A second signal ends the drain at once.
    ///
    /// Dropping the future stops the worker in the same way, in the background.
    pub async fn serve(&self, listener: TcpListener, app: Router) -> io::Result<()> {
        let _stop = self.start()?;
        let (limits, worker) = (http::Limits::of(&self.0.options), &self.0.worker);
        http::serve(listener, app, limits, worker.gone().clone(), worker.over().clone()).await;
        worker.over().cancel();
        Ok(())
    }

    /// Works until SIGTERM, Ctrl-C or [`shutdown`](Self::shutdown), and drains; for a process without HTTP.
    pub async fn run(&self) -> io::Result<()> {
        let _stop = self.start()?;
        self.0.worker.gone().cancelled().await;
        self.0.worker.over().cancel();
        Ok(())
    }

    /// Asks [`serve`](Self::serve) or [`run`](Self::run) to drain and return, as SIGTERM does. Where neither runs and the
    /// routes are in a server of your own, this ends waits and streams, so that the server can end.
    pub fn shutdown(&self) {
        self.0.worker.stop();
        if !self.0.started.load(Ordering::Acquire) {
            self.0.worker.gone().cancel();
        }
    }

    /// Runs every job that is runnable now, and those that follow from them, until none is; for tests on a
    /// [`MemoryStore`](crate::MemoryStore), where delayed jobs become runnable when the test moves its clock.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobStatus, JobType, Lookup, MemoryStore};
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
    /// let Lookup::Found(job) = endpoints.job(id).await? else { panic!("it is there") };
    /// assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
    /// # Ok(()) }
    /// ```
    pub async fn run_until_idle(&self) -> Result<(), StoreError> {
        self.0.worker.run_until_idle().await
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
    pub async fn cancel(&self, id: JobId) -> Result<Cancel, StoreError> {
        let canceled = within(self.0.store.cancel(id, &Builtin::Canceled.record(None))).await?;
        if matches!(canceled, Cancel::Requested(_)) {
            // Other workers hear of it when they renew.
            self.0.worker.stop_canceled(id);
        }
        Ok(canceled)
    }

    /// Makes a new job out of one that failed or was canceled, once: a repeat finds the same new job.
    pub async fn retry(&self, id: JobId) -> Result<Retry, StoreError> {
        self.retry_traced(id, None).await
    }

    pub(crate) async fn retry_traced(&self, id: JobId, trace: Option<TraceContext>) -> Result<Retry, StoreError> {
        within(self.0.store.retry(id, &RetryAs { id: JobId::random(), trace })).await
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
        self.0.worker.gone().cancelled().await;
    }

    pub(crate) fn endpoints(&self) -> &[Declared] {
        &self.0.endpoints
    }

    /// How they are shown.
    pub(crate) fn face(&self) -> &Face {
        &self.0.face
    }

    /// Why a job waits; none if it does not. What this process works on, it need not ask the fleet about.
    pub(crate) async fn waiting(&self, job: &JobView) -> Option<Waiting> {
        let worker = &self.0.worker;
        let works = self.0.started.load(Ordering::Acquire) && worker.takes(&job.name) && !worker.is_stopping();
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
        let mut listening = self.0.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (hub, store, worker) = (self.0.hub.clone(), self.0.store.clone(), self.0.worker.clone());
        *listening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let work = |name: Option<&JobName>| {
                if name.is_none_or(|name| worker.takes(name)) {
                    worker.wake();
                }
            };
            tokio::join!(
                supervise("hub", worker.restarts(), || hub.listen(&*store, work)),
                supervise("hub tell", worker.restarts(), || hub.tell(&*store)),
            );
        })));
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
