//! The worker: takes jobs, runs their handlers, settles them, and keeps or gives back its leases.
//!
//! | file | does |
//! |---|---|
//! | `claimer` | claims against free permits and starts attempts |
//! | `attempt` | runs one handler within its limits and says what its end means |
//! | `settler` | writes ends down in batches, through outages |
//! | `reporter` | stores progress |
//! | `keeper` | renews leases on its own thread, hears of cancel requests, ends what is blocked |
//! | `janitor` | recovers jobs of dead workers, prunes |
//! | `running`, `slots` | what runs, and how much may |
//!
//! Must not know HTTP, drivers or metric names.

mod attempt;
mod backoff;
mod claimer;
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
    JobName,
    limits::BATCH_JOBS,
    store::{self, Store, WorkerId},
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub(crate) use self::supervise::supervise;
use self::{
    reporter::Reporter,
    running::{Table, Why},
    settler::{Batch, LAST_TRY, Settler, Settling},
    slots::Slots,
    supervise::Restarts,
};
use crate::{handler::ErasedHandler, job_type::Policy, middleware::Middleware, options::Options, telemetry::events};

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
    pub slots: store::Slots,
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
    slots: Arc<Slots>,
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
    /// The claimer alone: what it is just being given must be started, or given back.
    claiming: TaskTracker,
    tasks: TaskTracker,
}

impl Worker {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        options: Options,
        kinds: Arc<[Kind]>,
        middlewares: Arc<[Arc<dyn Middleware>]>,
    ) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let limits = kinds.iter().map(|kind| kind.policy.concurrency).collect();
        let places = kinds.iter().enumerate().map(|(place, kind)| (kind.name.clone(), place)).collect();
        Arc::new(Self {
            id: WorkerId(Uuid::new_v4()),
            slots: Slots::new(options.concurrency, limits, wake.clone()),
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
            claiming: TaskTracker::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// A worker with the same handlers that was never started: one that stopped does not start again.
    pub(crate) fn again(&self) -> Arc<Self> {
        Self::new(self.store.clone(), self.options.clone(), self.kinds.clone(), self.middlewares.clone())
    }

    /// Starts to take jobs. Needs a runtime.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        self.start_keeping()?;
        self.task(&self.claiming, "claimer", |worker| async move { claimer::run(&worker).await });
        self.task(&self.tasks, "janitor", |worker| async move { janitor::run(&worker).await });
        Ok(())
    }

    fn start_keeping(self: &Arc<Self>) -> std::io::Result<()> {
        keeper::start(self.clone())?;
        self.task(&self.tasks, "settler", |worker| async move { worker.settler.run(&*worker.store).await });
        self.task(&self.tasks, "reporter", |worker| async move { worker.reporter.run(&*worker.store).await });
        Ok(())
    }

    /// Takes jobs of the caller's making until none can be had, and ends when all are settled.
    pub(crate) async fn run_until_idle(self: &Arc<Self>) -> Result<(), store::StoreError> {
        self.start_keeping().map_err(|error| store::StoreError::Backend { source: error.into() })?;
        let ran = self.run_runnable().await;
        self.stop(Duration::ZERO).await;
        ran
    }

    async fn run_runnable(self: &Arc<Self>) -> Result<(), store::StoreError> {
        while claimer::claim(self).await?.started > 0 {
            self.table.empty().await;
        }
        Ok(())
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

    /// Takes nothing more, lets attempts end for as long as `within` allows, and gives the rest back: they run
    /// elsewhere, or here after a restart, and no retry is used up.
    pub(crate) async fn stop(self: &Arc<Self>, within: Duration) {
        self.stopping.cancel();
        self.claiming.close();
        let last_call = (within / 4).min(Duration::from_secs(1));
        let drained = async {
            self.claiming.wait().await;
            self.table.empty().await;
        };
        let drained = tokio::select! {
            () = drained => true,
            () = tokio::time::sleep(within - last_call) => false,
            () = self.hurry.cancelled() => false,
        };
        if !drained {
            self.table.all().iter().for_each(|running| running.stop(Why::Shutdown));
            let _ = tokio::time::timeout(last_call, self.table.empty()).await;
            self.give_back().await;
        }
        self.done.cancel();
        self.tasks.close();
        // Handlers that block every thread would keep these from ending, and the process with them.
        let _ = tokio::time::timeout(LAST_TRY, self.tasks.wait()).await;
        let _ = tokio::time::timeout(2 * LAST_TRY, self.gone.cancelled()).await;
    }

    /// Ends the drain now.
    pub(crate) fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Gives back what still runs. If this fails, the leases run out.
    async fn give_back(&self) {
        let running = self.table.all();
        let left = running.iter().filter_map(|running| attempt::take_over(self, running, Why::Shutdown));
        let mut left: Vec<Settling> = left.collect();
        events::attempts_given_back(left.len());
        while !left.is_empty() {
            let batch: Batch = left.drain(..left.len().min(BATCH_JOBS)).collect();
            match tokio::time::timeout(LAST_TRY, batch.try_settle(&*self.store)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => events::store_failed("settle", &error),
                Err(_) => events::store_silent("settle", LAST_TRY),
            }
        }
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
