//! Runs the checks side by side in the background and keeps their last results.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_endpoints_core::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    check::{Check, CheckResult, HealthStatus},
    report::{CheckReport, HealthReport},
};
use crate::{jitter::about, panics, sync::Mutex};

/// Interval between the end of a check and its next run.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same after an Unhealthy result, so that a process is ready again soon after its store is.
const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(2);
/// How long a report waits for the first results, counted from the start of the monitor.
const FIRST_ROUND: Duration = Duration::from_millis(60);
/// Age of a result from which on it is not valid: the check should have run twice since.
const STALE: Duration = Duration::from_secs(15);

/// Called with each change: the check's name, its new status and the description.
pub(crate) type OnChange = Box<dyn Fn(&str, HealthStatus, Option<&str>) + Send + Sync>;

/// The checks of one set of endpoints.
pub(crate) struct Monitor {
    watched: Vec<Arc<Watched>>,
    on_change: Arc<OnChange>,
    run: Mutex<Option<Run>>,
}

/// The running tasks.
struct Run {
    began: Instant,
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// A check and its state.
struct Watched {
    name: String,
    check: Check,
    state: watch::Sender<State>,
}

#[derive(Clone, Default)]
struct State {
    last: Option<Finished>,
    running_since: Option<Instant>,
}

#[derive(Clone)]
struct Finished {
    at: Instant,
    /// When the check first returned this status in a row.
    since: Timestamp,
    duration: Duration,
    result: CheckResult,
}

impl Monitor {
    pub(crate) fn new(checks: Vec<(String, Check)>, on_change: OnChange) -> Self {
        let watched = |(name, check)| Arc::new(Watched { name, check, state: watch::Sender::default() });
        Self {
            watched: checks.into_iter().map(watched).collect(),
            on_change: Arc::new(on_change),
            run: Mutex::default(),
        }
    }

    /// Starts the checks on the current runtime, unless they run already. They end with the monitor, or with the runtime;
    /// in that case the next call starts them again. Returns when they were started.
    pub(crate) fn start(&self) -> Instant {
        let mut run = self.run.lock();
        if let Some(run) = run.as_ref().filter(|run| run.tasks.iter().all(|task| !task.is_finished())) {
            return run.began;
        }
        let spawn = |watched: &Arc<Watched>| {
            let (watched, on_change) = (watched.clone(), self.on_change.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { watched.keep_checking(&on_change).await }))
        };
        run.insert(Run { began: Instant::now(), tasks: self.watched.iter().map(spawn).collect() }).began
    }

    /// Returns the last results of the checks with this tag, or of all. Runs no check; only the first reports wait for the
    /// first results, for a short time.
    pub(crate) async fn report(&self, tag: Option<&str>) -> HealthReport {
        let until = self.start() + FIRST_ROUND;
        let is_selected = |watched: &&Arc<Watched>| tag.is_none_or(|tag| watched.check.tags.iter().any(|of| of == tag));
        let mut checks = Vec::new();
        for watched in self.watched.iter().filter(is_selected) {
            let mut state = watched.state.subscribe();
            // Without a result by then, the check is not checked yet.
            let _ = timeout_at(until, state.wait_for(|state| state.last.is_some())).await;
            checks.push(watched.report());
        }
        HealthReport::of(checks)
    }

    /// Names and current status of all checks that have a result.
    pub(crate) fn statuses(&self) -> Vec<(&str, HealthStatus)> {
        let known = self.watched.iter().filter(|watched| watched.state.borrow().last.is_some());
        known.map(|watched| (watched.name.as_str(), watched.report().status)).collect()
    }
}

impl Watched {
    async fn keep_checking(&self, on_change: &OnChange) {
        loop {
            self.check_once(on_change).await;
            sleep(about(self.interval())).await;
        }
    }

    fn interval(&self) -> Duration {
        match &self.state.borrow().last {
            Some(last) if last.result.status == HealthStatus::Unhealthy => UNHEALTHY_INTERVAL,
            _ => INTERVAL,
        }
    }

    /// Runs the check. After its timeout it is aborted, and awaited: a check that blocks its thread cannot be aborted, and
    /// is not started a second time beside it.
    async fn check_once(&self, on_change: &OnChange) {
        let began = Instant::now();
        self.state.send_modify(|state| state.running_since = Some(began));
        let check = self.check.check.clone();
        let mut task = AbortOnDropHandle::new(tokio::spawn(async move { check.check().await }));
        let limit = self.check.timeout;
        let result = match timeout(limit, &mut task).await {
            Ok(Ok(Ok(result))) => result,
            Ok(Ok(Err(error))) => self.failed(chain(&*error)),
            Ok(Err(ended)) => self.failed(match ended.try_into_panic() {
                Ok(panic) => format!("the check panicked: {}", panics::message(&*panic)),
                Err(ended) => ended.to_string(),
            }),
            Err(_) => {
                self.finish(began, self.failed(format!("no result within {limit:?}")), on_change);
                task.abort();
                let _ = task.await;
                self.state.send_modify(|state| state.running_since = None);
                return;
            }
        };
        self.finish(began, result, on_change);
        self.state.send_modify(|state| state.running_since = None);
    }

    fn failed(&self, description: String) -> CheckResult {
        CheckResult::of(self.check.failure_status, description)
    }

    fn finish(&self, began: Instant, result: CheckResult, on_change: &OnChange) {
        let (status, description) = (result.status, result.description.clone());
        let now = Instant::now();
        let mut last = Finished { at: now, since: SystemTime::now().into(), duration: now - began, result };
        let mut before = None;
        self.state.send_modify(|state| {
            if let Some(same) = state.last.as_ref().filter(|before| before.result.status == status) {
                last.since = same.since;
            }
            before = state.last.replace(last);
        });
        if before.map_or(HealthStatus::Healthy, |before| before.result.status) != status {
            on_change(&self.name, status, description.as_deref());
        }
    }

    fn report(&self) -> CheckReport {
        let State { last, running_since } = self.state.borrow().clone();
        let hangs = running_since.map(|since| since.elapsed()).filter(|running| *running > self.check.timeout);
        let (duration, since, result) = match (last, hangs) {
            (_, Some(hangs)) => {
                (hangs, None, self.failed(format!("has not returned for {:.1} s", hangs.as_secs_f64())))
            }
            (None, None) => (Duration::ZERO, None, CheckResult::unhealthy("not checked yet")),
            (Some(last), None) if running_since.is_none() && last.at.elapsed() > STALE => {
                (last.duration, None, self.failed(format!("not checked for {:.1} s", last.at.elapsed().as_secs_f64())))
            }
            (Some(last), None) => (last.duration, Some(last.since), last.result),
        };
        let report = CheckReport::new(Cow::Owned(self.name.clone()), self.check.tags.clone(), duration, result);
        CheckReport { since, ..report }
    }
}

/// The messages of an error and of its sources.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
