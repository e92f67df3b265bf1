//! Health checks, and the reports that orchestrators and load balancers read.
//!
//! Checks run side by side in the background, every 5 s; the routes read the last results. Add checks of the application with
//! [`Builder::health_check`](crate::Builder::health_check).
//!
//! | built-in check | tag `ready` | reports |
//! |---|---|---|
//! | `asyncendpoints` | yes | the store's latency, whether it accepts writes, stuck jobs |
//! | `memory`, `sqlite`, `redis`, `postgres`, … | yes | what the store knows about itself |
//! | `asyncendpoints.queuedepth` | no | queued jobs of each type |
//! | `process_allocated_memory` | no | resident memory |
//! | `workers` | no | heartbeats of the fleet and of this process's worker |
//! | `alerts` | no | the age of the last evaluation, failed notifications; only with [`Builder::alerts`](crate::Builder::alerts) |
//!
//! | file | contents |
//! |---|---|
//! | `check` | the interface, results, and the rules a check runs under |
//! | `monitor` | runs checks and keeps their results |
//! | `report` | results as JSON |
//! | `live` | liveness |
//! | `job_store`, `own_store`, `queue_depth`, `memory`, `workers`, `alerts` | the built-in checks |

mod alerts;
mod check;
#[cfg(test)]
mod fixtures;
mod job_store;
mod live;
mod memory;
mod monitor;
#[cfg(test)]
mod monitor_tests;
mod own_store;
mod queue_depth;
mod report;
mod workers;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{JobName, Store};
use tokio_util::task::AbortOnDropHandle;

use self::{
    alerts::AlertsCheck, job_store::JobStoreCheck, monitor::Monitor, own_store::OwnStoreCheck,
    queue_depth::QueueDepthCheck, workers::WorkersCheck,
};
pub(crate) use self::{
    alerts::{AlertVitals, ReadAlerts},
    monitor::OnChange,
};
pub use self::{
    check::{BoxError, Check, CheckResult, HealthCheck, HealthStatus},
    memory::ProcessMemory,
    report::{CheckReport, HealthReport},
};
use crate::{
    options::Options,
    stats_cache::StatsCache,
    sync::Mutex,
    types::SharedControls,
    vitals::{Pulse, Vitals},
};

/// Tag of the checks that `/health/ready` reports.
const READY: &str = "ready";
/// Name of the entry that `/health/ready` has from the stop request on.
pub(crate) const SHUTDOWN: &str = "shutdown";

/// The health of one set of endpoints.
pub(crate) struct Health {
    monitor: Monitor,
    worker: Arc<Vitals>,
    runtime: Arc<Pulse>,
    ticker: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the built-in checks read.
pub(crate) struct Sources<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) stats: &'a Arc<StatsCache>,
    pub(crate) controls: &'a Arc<SharedControls>,
    pub(crate) worker: &'a Arc<Vitals>,
    pub(crate) options: &'a Options,
    /// The declared types, and the number of queued jobs from which on each is degraded.
    pub(crate) types: Vec<(JobName, u64)>,
    /// The age of the last evaluation of alert rules above which alerts are degraded, and what reads their state; none
    /// without alerts.
    pub(crate) alerts: Option<(Duration, ReadAlerts)>,
}

impl Health {
    pub(crate) fn new(checks: Vec<(String, Check)>, worker: Arc<Vitals>, on_change: OnChange) -> Self {
        let monitor = Monitor::new(checks, on_change);
        Self { monitor, worker, runtime: Arc::default(), ticker: Mutex::default() }
    }

    /// Starts the checks and the runtime's ticks, unless they run.
    pub(crate) fn start(&self) {
        self.monitor.start();
        let mut ticker = self.ticker.lock();
        if ticker.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let pulse = self.runtime.clone();
            *ticker = Some(AbortOnDropHandle::new(tokio::spawn(async move { live::tick(&pulse).await })));
        }
    }

    /// The report of all checks.
    pub(crate) async fn all(&self) -> HealthReport {
        self.start();
        self.monitor.report(None).await
    }

    /// The report of the checks with the tag `ready`. Unhealthy from the stop request on.
    pub(crate) async fn ready(&self) -> HealthReport {
        self.start();
        let mut report = self.monitor.report(Some(READY)).await;
        if self.worker.stop_requested.is_cancelled() {
            let stopping = CheckResult::unhealthy("the process stops");
            let tags = vec![READY.to_owned()];
            report.checks.push(CheckReport::new(SHUTDOWN.into(), tags, Duration::ZERO, stopping));
            report = HealthReport::of(report.checks);
        }
        report
    }

    /// The report on the parts that a restart would repair. Reads no store and runs no check.
    pub(crate) fn live(&self) -> HealthReport {
        self.start();
        live::report([("runtime", self.runtime.silence()), ("worker", self.worker.keeper.silence())])
    }

    /// The current status of each check that has a result.
    pub(crate) fn statuses(&self) -> Vec<(&str, HealthStatus)> {
        self.monitor.statuses()
    }
}

/// The built-in checks and those of the application. A check of the application replaces a built-in one of the same name.
pub(crate) fn checks(sources: Sources<'_>, own: Vec<(String, Check)>) -> Vec<(String, Check)> {
    let built_in = built_in(sources).into_iter().map(|(name, check)| (name.to_owned(), check));
    let kept: Vec<_> = built_in.filter(|(name, _)| !own.iter().any(|(other, _)| other == name)).collect();
    kept.into_iter().chain(own).collect()
}

fn built_in(sources: Sources<'_>) -> Vec<(&'static str, Check)> {
    let Sources { store, stats, controls, worker, options, types, alerts } = sources;
    let job_store = JobStoreCheck { store: store.clone(), stats: stats.clone(), max_retries: options.max_retries };
    let workers = WorkersCheck {
        stats: stats.clone(),
        controls: controls.clone(),
        declared: types.iter().map(|(name, _)| name.clone()).collect(),
        own: Arc::clone(worker),
        lease: options.lease,
    };
    let (stats_cache, limits) = (stats.clone(), types.into_iter().collect());
    let queue_depth = QueueDepthCheck { stats: stats_cache, controls: controls.clone(), limits };
    let mut checks = vec![
        ("asyncendpoints", Check::new(job_store).tag(READY).timeout(Duration::from_secs(10))),
        (store.kind(), Check::new(OwnStoreCheck(store.clone())).tag(READY)),
        ("asyncendpoints.queuedepth", Check::new(queue_depth)),
        ("process_allocated_memory", Check::new(ProcessMemory::default())),
        ("workers", Check::new(workers)),
    ];
    if let Some((limit, read)) = alerts {
        let check = AlertsCheck { read, stats: stats.clone(), limit, began: Instant::now() };
        checks.push(("alerts", Check::new(check).failure_status(HealthStatus::Degraded)));
    }
    checks
}
