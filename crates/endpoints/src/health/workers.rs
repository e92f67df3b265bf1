//! The check `workers`: heartbeats of the fleet, and those of this process's worker.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus,
    store::{LiveWorker, Stats},
};
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::{
    capacity::live,
    stats_cache::StatsCache,
    types::{Controls, SharedControls},
    vitals::Vitals,
};

pub(super) struct WorkersCheck {
    pub(super) stats: Arc<StatsCache>,
    pub(super) controls: Arc<SharedControls>,
    /// The types that are declared in this process.
    pub(super) declared: Vec<JobName>,
    /// This process's worker.
    pub(super) own: Arc<Vitals>,
    pub(super) lease: Duration,
}

#[async_trait]
impl HealthCheck for WorkersCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        if let Some(result) = silent(self.own.heartbeats.silence(), 2 * self.lease) {
            return Ok(result);
        }
        Ok(judge(&*self.stats.refresh().await?, &*self.controls.soon().await, &self.declared, self.lease))
    }
}

/// The result for a worker whose heartbeats the store does not record.
fn silent(silence: Option<Duration>, limit: Duration) -> Option<CheckResult> {
    let seconds = silence.filter(|silence| *silence > limit)?.as_secs_f64();
    Some(CheckResult::unhealthy(format!("the store has no heartbeat of this worker for {seconds:.1} s")))
}

/// A paused type needs no worker. The paused types are always named, so that no pause is forgotten.
/// A worker that is silent for a moment still has its handlers, but does not count as live.
fn judge(stats: &Stats, controls: &Controls, declared: &[JobName], lease: Duration) -> CheckResult {
    let is_abandoned = |name: &&JobName| {
        let waits = stats.types.iter().any(|of_type| of_type.name == **name && of_type.count(JobStatus::Queued) > 0);
        waits && controls.pause(name).is_none() && !stats.workers.iter().any(|worker| worker.runs(name))
    };
    let abandoned = declared.iter().filter(is_abandoned);
    let reasons: Vec<String> =
        abandoned.map(|name| format!("jobs of {name} wait and no live worker runs them")).collect();
    let live: Vec<&LiveWorker> = live(&stats.workers, stats.now, lease).collect();
    let slots = |count: fn(&LiveWorker) -> u32| live.iter().map(|worker| u64::from(count(worker))).sum::<u64>();
    let paused: Vec<&str> = controls.paused().map(JobName::as_str).collect();
    CheckResult::degraded_by(&reasons)
        .with("paused_types", paused)
        .with("live_workers", live.len())
        .with("busy_slots", slots(|worker| worker.info.slots.busy))
        .with("idle_slots", slots(|worker| worker.info.slots.idle))
        .with("leaked_slots", slots(|worker| worker.info.slots.leaked))
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::Timestamp;

    use super::*;
    use crate::health::{
        HealthStatus::{Degraded, Healthy, Unhealthy},
        fixtures::{of_type, paused, worker},
    };

    #[test]
    fn worker_is_silent_after_its_limit() {
        let limit = Duration::from_secs(16);
        assert_eq!((silent(None, limit), silent(Some(limit), limit)), (None, None));
        let result = silent(Some(limit + Duration::from_millis(100)), limit).expect("a result");
        let text = "the store has no heartbeat of this worker for 16.1 s";
        assert_eq!((result.status, result.description.as_deref()), (Unhealthy, Some(text)));
    }

    #[test]
    fn waiting_type_without_worker_is_degraded() {
        let declared = [JobName::new("A").expect("a name")];
        let judge = |controls, types, workers| {
            judge(&Stats { types, workers, ..Stats::default() }, &controls, &declared, Duration::from_secs(8))
        };
        let status = |types, workers| judge(Controls::default(), types, workers).status;
        assert_eq!(status(vec![of_type("A", 1)], vec![worker("A")]), Healthy);
        assert_eq!(status(vec![of_type("A", 1)], vec![worker("B")]), Degraded);
        assert_eq!(status(vec![of_type("A", 0)], vec![]), Healthy, "no job waits");
        assert_eq!(status(vec![of_type("B", 1)], vec![]), Healthy, "another service's type");
        let now = worker("A").last_heartbeat_at.as_micros() + 5_000_000;
        let (types, workers) = (vec![of_type("A", 1)], vec![worker("A")]);
        let stats = Stats { now: Timestamp::from_micros(now), types, workers, ..Stats::default() };
        let silent = super::judge(&stats, &Controls::default(), &declared, Duration::from_secs(8));
        assert_eq!((silent.status, &silent.data["live_workers"]), (Healthy, &serde_json::json!(0)));
        let paused = judge(paused("A"), vec![of_type("A", 1)], vec![]);
        assert_eq!((paused.status, &paused.data["paused_types"]), (Healthy, &serde_json::json!(["A"])));
    }
}
