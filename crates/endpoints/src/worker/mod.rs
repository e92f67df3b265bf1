//! The worker: claims jobs, runs their handlers, settles the attempts, and keeps or releases their leases.
//!
//! An attempt goes through four steps: claim, run, decide, settle.
//!
//! | module | purpose |
//! |---|---|
//! | `claimer` | claims jobs against free permits and starts attempts |
//! | `attempt` | runs one handler within its time limits |
//! | `decide` | decides the outcome of the attempt |
//! | `settler` | writes settlements in batches, through outages |
//! | `keeper` | on its own thread: renews leases, enforces time limits, handles signals |
//! | `drain` | stops the worker: waits for running attempts and releases the rest |
//! | `info` | describes the worker in heartbeats |
//! | `janitor` | recovers jobs of dead workers and prunes expired jobs |
//! | `running`, `slots` | running attempts and their permits |
//! | `supervise` | restarts background tasks that panic |
//!
//! Must not know HTTP, drivers or metric names.

mod attempt;
mod claimer;
mod decide;
mod drain;
mod info;
mod janitor;
mod keeper;
mod running;
mod settler;
mod slots;
mod supervise;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName,
    store::{self, Store, WorkerId, WorkerInfo},
};
use tokio::sync::{Notify, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub(crate) use self::{info::describe, supervise::supervise};
use self::{running::RunningTable, settler::Settler, slots::SlotPool, supervise::Restarts};
use crate::{
    cancellation::CancellationReason,
    handler::ErasedHandler,
    job_type::Policy,
    middleware::Middleware,
    new_job::Acceptor,
    options::Options,
    panics,
    progress::ProgressQueue,
    store_call::STORE_TIMEOUT,
    telemetry::{self, events},
    types::SharedControls,
    vitals::Vitals,
};

/// Time for the tasks of a stopped worker to end.
const LAST_TASKS: Duration = Duration::from_millis(300);

/// Closes when the keeper's thread has released the store.
pub(crate) type KeeperEnd = oneshot::Receiver<()>;

/// A job type that this worker has a handler for.
pub(crate) struct RegisteredType {
    pub(crate) name: JobName,
    pub(crate) policy: Policy,
    pub(crate) handler: Arc<dyn ErasedHandler>,
}

/// The current state of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The worker's id, new with every start of the process.
    pub worker: WorkerId,
    /// Busy, idle and leaked slots.
    pub slots: store::WorkerSlots,
    /// Number of restarts after a panic, by background task. Normally empty.
    pub restarts: BTreeMap<&'static str, u32>,
}

/// What a worker uses.
pub(crate) struct WorkerParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Options,
    pub(crate) types: Arc<[RegisteredType]>,
    pub(crate) middlewares: Arc<[Arc<dyn Middleware>]>,
    pub(crate) observed: Arc<telemetry::RunningTable>,
    pub(crate) acceptor: Arc<dyn Acceptor>,
    pub(crate) controls: Arc<SharedControls>,
}

pub(crate) struct Worker {
    /// Slots and types are empty.
    info: WorkerInfo,
    store: Arc<dyn Store>,
    options: Options,
    types: Arc<[RegisteredType]>,
    type_indexes: HashMap<JobName, usize>,
    middlewares: Arc<[Arc<dyn Middleware>]>,
    observed: Arc<telemetry::RunningTable>,
    /// Accepts what handlers submit.
    acceptor: Arc<dyn Acceptor>,
    /// Pauses and limits of job types.
    controls: Arc<SharedControls>,
    slots: Arc<SlotPool>,
    table: Arc<RunningTable>,
    settler: Settler,
    progress: Arc<ProgressQueue>,
    restarts: Restarts,
    /// Wakes the claimer when work arrives or a permit is freed.
    wake: Arc<Notify>,
    /// The drain has begun: no more jobs are claimed.
    stopping: CancellationToken,
    /// A second signal arrived: the drain ends at once.
    stop_now: CancellationToken,
    /// Every attempt is settled or released.
    settled: CancellationToken,
    /// The worker is deregistered.
    drained: CancellationToken,
    /// Connections have ended, or their time is over.
    closed: CancellationToken,
    /// The claimer alone: the drain waits for a claim in flight.
    claiming: TaskTracker,
    /// Attempts and background tasks.
    tasks: TaskTracker,
    vitals: Arc<Vitals>,
}

impl Worker {
    pub(crate) fn new(info: WorkerInfo, parts: WorkerParts) -> Arc<Self> {
        let WorkerParts { store, options, types, middlewares, observed, acceptor, controls } = parts;
        let wake = Arc::new(Notify::new());
        let slots = if types.is_empty() { 0 } else { options.concurrency };
        Arc::new(Self {
            info,
            slots: SlotPool::new(slots, types.len(), wake.clone()),
            store,
            options,
            type_indexes: types.iter().enumerate().map(|(index, of_type)| (of_type.name.clone(), index)).collect(),
            types,
            middlewares,
            observed,
            acceptor,
            controls,
            table: Arc::default(),
            settler: Settler::new(),
            progress: Arc::default(),
            restarts: Restarts::default(),
            wake,
            stopping: CancellationToken::new(),
            stop_now: CancellationToken::new(),
            settled: CancellationToken::new(),
            drained: CancellationToken::new(),
            closed: CancellationToken::new(),
            claiming: TaskTracker::new(),
            tasks: TaskTracker::new(),
            vitals: Arc::default(),
        })
    }

    /// A new worker with the same handlers. A stopped worker cannot be started again.
    fn again(&self) -> Arc<Self> {
        let parts = WorkerParts {
            store: self.store.clone(),
            options: self.options.clone(),
            types: self.types.clone(),
            middlewares: self.middlewares.clone(),
            observed: self.observed.clone(),
            acceptor: self.acceptor.clone(),
            controls: self.controls.clone(),
        };
        Self::new(describe(WorkerId(Uuid::new_v4()), self.info.version.clone()), parts)
    }

    /// Starts all tasks: they run until a signal or [`stop`](Self::stop). Must be called in a runtime's context.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<KeeperEnd> {
        let keeper = self.start_keeping(true)?;
        if !self.types.is_empty() {
            self.task(&self.claiming, "claimer", |worker| async move { claimer::run(&worker).await });
        }
        self.task(&self.tasks, "sweeper", |worker| async move { janitor::sweep(&worker).await });
        self.task(&self.tasks, "pruner", |worker| async move { janitor::prune(&worker).await });
        Ok(keeper)
    }

    fn start_keeping(self: &Arc<Self>, signals: bool) -> std::io::Result<KeeperEnd> {
        panics::watch_panics();
        let keeper = keeper::start(self.clone(), signals)?;
        let limit = self.call_limit();
        self.task(&self.tasks, "settler", move |worker| async move { worker.settler.run(&*worker.store, limit).await });
        self.task(&self.tasks, "reporter", move |worker| async move {
            worker.progress.run(&*worker.store, limit, |error| events::store_failed("report", error)).await;
        });
        Ok(keeper)
    }

    /// Ends the worker after the drain. Returns when its thread and tasks have released the store.
    ///
    /// Does not wait for long for the tasks: a handler that blocks its thread keeps its task.
    pub(crate) async fn end(&self, keeper: KeeperEnd) {
        self.closed.cancel();
        let _ = keeper.await;
        self.tasks.close();
        let _ = tokio::time::timeout(LAST_TASKS, self.tasks.wait()).await;
    }

    /// Claims and runs jobs until none is runnable. Returns when all attempts are settled.
    pub(crate) async fn run_until_idle(&self) -> Result<(), store::StoreError> {
        self.controls.read().await?;
        let worker = self.again();
        let _stop = worker.stopping.clone().drop_guard();
        let keeper =
            worker.start_keeping(false).map_err(|error| store::StoreError::Backend { source: error.into() })?;
        while claimer::claim(&worker).await?.started > 0 {
            worker.table.empty().await;
        }
        worker.begin_drain();
        worker.drained.cancelled().await;
        worker.end(keeper).await;
        Ok(())
    }

    /// Requests a drain, as a signal does. It begins after [`Options::shutdown_delay`].
    pub(crate) fn stop(&self) {
        self.vitals.stop_requested.cancel();
        if self.options.shutdown_delay.is_zero() {
            self.begin_drain();
        }
    }

    /// Begins the drain at once.
    pub(crate) fn begin_drain(&self) {
        self.stopping.cancel();
    }

    /// Stops the handler of a job whose cancellation was requested, if the job runs here.
    pub(crate) fn stop_canceled(&self, id: JobId) {
        let running = self.table.all();
        running
            .iter()
            .filter(|running| running.lease.job == id)
            .for_each(|running| running.stop(CancellationReason::Canceled));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Fires when the drain begins.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Fires at a second stop request: the drain ends at once.
    pub(crate) fn stop_now(&self) -> &CancellationToken {
        &self.stop_now
    }

    /// Fires when every attempt is settled or released and the worker is deregistered.
    pub(crate) fn drained(&self) -> &CancellationToken {
        &self.drained
    }

    /// Fires when the time for open connections is over. The owner of the connections fires it when all have ended.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Claims now instead of at the next poll.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the worker has a handler for this job type.
    pub(crate) fn has_handler(&self, name: &JobName) -> bool {
        self.type_indexes.contains_key(name)
    }

    /// What health checks read.
    pub(crate) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    pub(crate) fn restarts(&self) -> &Restarts {
        &self.restarts
    }

    pub(crate) fn status(&self) -> WorkerStatus {
        WorkerStatus { worker: self.info.id, slots: self.slots.snapshot(), restarts: self.restarts.snapshot() }
    }

    /// Time limit of a store call.
    fn call_limit(&self) -> Duration {
        self.options.lease.min(STORE_TIMEOUT)
    }

    fn type_index(&self, name: &JobName) -> Option<usize> {
        self.type_indexes.get(name).copied()
    }

    /// Runs a supervised task until every attempt is settled.
    fn task<F>(
        self: &Arc<Self>,
        tracker: &TaskTracker,
        name: &'static str,
        run: impl Fn(Arc<Self>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let worker = self.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = worker.settled.cancelled() => {}
                () = supervise(name, &worker.restarts, || run(worker.clone())) => {}
            }
        });
    }
}
