//! The worker: takes jobs, runs their handlers, settles them, and keeps or gives back its leases.
//!
//! | file | does |
//! |---|---|
//! | `claimer` | claims against free permits and starts attempts |
//! | `attempt` | runs one handler within its limits and says what its end means |
//! | `settler` | writes ends down in batches, through outages |
//! | `reporter` | stores progress |
//! | `keeper` | on its own thread: renews leases, hears of cancel requests and signals, ends what is blocked |
//! | `drain` | lets attempts end when the process stops, and gives back the rest |
//! | `janitor` | recovers jobs of dead workers, prunes |
//! | `running`, `slots` | what runs, and how much may |
//!
//! Must not know HTTP, drivers or metric names.

mod attempt;
mod backoff;
mod claimer;
mod drain;
mod janitor;
mod keeper;
mod reporter;
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
    store::{self, Store, WorkerId},
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    reporter::Reporter,
    running::{Table, Why},
    settler::Settler,
    slots::SlotPool,
    supervise::Restarts,
};
pub(crate) use self::{running::LATEST_END, supervise::supervise};
use crate::{
    handler::ErasedHandler, job_type::Policy, middleware::Middleware, options::Options, store_call::STORE_TIMEOUT,
};

/// A type that this worker runs.
pub(crate) struct Kind {
    pub(crate) name: JobName,
    pub(crate) policy: Policy,
    pub(crate) handler: Arc<dyn ErasedHandler>,
}

/// What a worker does at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Fresh with every start of the process.
    pub worker: WorkerId,
    /// What its slots do.
    pub slots: store::WorkerSlots,
    /// How often each background task was started again after a panic; empty is good.
    pub restarts: BTreeMap<&'static str, u32>,
}

pub(crate) struct Worker {
    id: WorkerId,
    store: Arc<dyn Store>,
    options: Options,
    kinds: Arc<[Kind]>,
    places: HashMap<JobName, usize>,
    middlewares: Arc<[Arc<dyn Middleware>]>,
    slots: Arc<SlotPool>,
    table: Arc<Table>,
    settler: Settler,
    reporter: Arc<Reporter>,
    restarts: Restarts,
    /// Wakes the claimer: work came, or a permit is free.
    wake: Arc<Notify>,
    /// Nothing more is claimed.
    stopping: CancellationToken,
    /// The drain is over, whatever still runs.
    hurry: CancellationToken,
    /// Everything is settled or given back.
    done: CancellationToken,
    /// The keeper has said goodbye.
    gone: CancellationToken,
    /// Connections have had their time, or are all gone.
    over: CancellationToken,
    /// The claimer alone: what it is just being given must be started, or given back.
    claiming: TaskTracker,
    tasks: TaskTracker,
}

impl Worker {
    pub(crate) fn new(
        id: WorkerId,
        store: Arc<dyn Store>,
        options: Options,
        kinds: Arc<[Kind]>,
        middlewares: Arc<[Arc<dyn Middleware>]>,
    ) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let limits = kinds.iter().map(|kind| kind.policy.concurrency).collect();
        let places = kinds.iter().enumerate().map(|(place, kind)| (kind.name.clone(), place)).collect();
        Arc::new(Self {
            id,
            // One without handlers has none.
            slots: SlotPool::new(if kinds.is_empty() { 0 } else { options.concurrency }, limits, wake.clone()),
            store,
            options,
            kinds,
            places,
            middlewares,
            table: Arc::default(),
            settler: Settler::new(),
            reporter: Arc::default(),
            restarts: Restarts::default(),
            wake,
            stopping: CancellationToken::new(),
            hurry: CancellationToken::new(),
            done: CancellationToken::new(),
            gone: CancellationToken::new(),
            over: CancellationToken::new(),
            claiming: TaskTracker::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// A worker with the same handlers that was never started: one that stopped does not start again.
    fn again(&self) -> Arc<Self> {
        let id = WorkerId(Uuid::new_v4());
        Self::new(id, self.store.clone(), self.options.clone(), self.kinds.clone(), self.middlewares.clone())
    }

    /// Starts to take jobs, if there are handlers, and to clear up, until a signal or [`stop`](Self::stop). Needs a runtime.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_keeping(true)?;
        if !self.kinds.is_empty() {
            self.task(&self.claiming, "claimer", |worker| async move { claimer::run(&worker).await });
        }
        self.task(&self.tasks, "sweeper", |worker| async move { janitor::sweep(&worker).await });
        self.task(&self.tasks, "pruner", |worker| async move { janitor::prune(&worker).await });
        Ok(())
    }

    fn start_keeping(self: &Arc<Self>, signals: bool) -> std::io::Result<()> {
        keeper::start(self.clone(), signals)?;
        let limit = self.call_limit();
        self.task(&self.tasks, "settler", move |worker| async move { worker.settler.run(&*worker.store, limit).await });
        self.task(&self.tasks, "reporter", move |worker| async move {
            worker.reporter.run(&*worker.store, limit).await;
        });
        Ok(())
    }

    /// Takes jobs of the caller's making until none can be had, and ends when all are settled.
    pub(crate) async fn run_until_idle(&self) -> Result<(), store::StoreError> {
        let worker = self.again();
        let _stop = worker.stopping.clone().drop_guard();
        worker.start_keeping(false).map_err(|error| store::StoreError::Backend { source: error.into() })?;
        while claimer::claim(&worker).await?.started > 0 {
            worker.table.empty().await;
        }
        worker.stop();
        worker.gone.cancelled().await;
        worker.over.cancel();
        Ok(())
    }

    /// Asks to drain, as a signal does.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Fires the token of a job whose cancellation the store has, if it runs here.
    pub(crate) fn stop_canceled(&self, id: JobId) {
        self.table
            .all()
            .iter()
            .filter(|running| running.lease.job == id)
            .for_each(|running| running.stop(Why::Canceled));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Fires when a stop was asked for.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Fires when everything is settled or given back.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Fires when connections have had their time as well.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Looks for jobs now rather than at the next poll.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn takes(&self, name: &JobName) -> bool {
        self.places.contains_key(name)
    }

    pub(crate) fn restarts(&self) -> &Restarts {
        &self.restarts
    }

    pub(crate) fn status(&self) -> WorkerStatus {
        WorkerStatus { worker: self.id, slots: self.slots.snapshot(), restarts: self.restarts.snapshot() }
    }

    /// How long a call of the store may take before it counts as failed.
    fn call_limit(&self) -> Duration {
        self.options.lease.min(STORE_TIMEOUT)
    }

    fn kind(&self, name: &JobName) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Runs a supervised task until the worker is done.
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
                () = worker.done.cancelled() => {}
                () = supervise(name, &worker.restarts, || run(worker.clone())) => {}
            }
        });
    }
}
