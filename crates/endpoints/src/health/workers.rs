//! The check `workers`: heartbeats of the fleet, and those of this process's worker.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus,
    store::{LiveWorker, Stats},
};
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::{stats_cache::StatsCache, vitals::Vitals};

pub(super) struct WorkersCheck {
    pub(super) stats: Arc<StatsCache>,
    /// The types that are declared in this process.
    pub(super) declared: Vec<JobName>,
    /// This process's worker.
    pub(super) own: Arc<Vitals>,
    /// Silence after which other processes do not count the worker as live.
    pub(super) limit: Duration,
}

#[async_trait]
impl HealthCheck for WorkersCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        if let Some(result) = silent(self.own.heartbeats.silence(), self.limit) {
            return Ok(result);
        }
        Ok(judge(&*self.stats.refresh().await?, &self.declared))
    }
}

/// The result for a worker whose heartbeats the store does not record.
fn silent(silence: Option<Duration>, limit: Duration) -> Option<CheckResult> {
    let seconds = silence.filter(|silence| *silence > limit)?.as_secs_f64();
    Some(CheckResult::unhealthy(format!("the store has no heartbeat of this worker for {seconds:.1} s")))
}

fn judge(stats: &Stats, declared: &[JobName]) -> CheckResult {
    let is_abandoned = |name: &&JobName| {
        let waits = stats.types.iter().any(|of_type| of_type.name == **name && of_type.count(JobStatus::Queued) > 0);
        waits && !stats.workers.iter().any(|worker| worker.runs(name))
    };
    let abandoned = declared.iter().filter(is_abandoned);
    let reasons: Vec<String> =
        abandoned.map(|name| format!("jobs of {name} wait and no live worker runs them")).collect();
    let slots =
        |count: fn(&LiveWorker) -> u32| stats.workers.iter().map(|worker| u64::from(count(worker))).sum::<u64>();
    CheckResult::degraded_by(&reasons)
        .with("live_workers", stats.workers.len())
        .with("busy_slots", slots(|worker| worker.info.slots.busy))
        .with("idle_slots", slots(|worker| worker.info.slots.idle))
        .with("leaked_slots", slots(|worker| worker.info.slots.leaked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        HealthStatus::{Degraded, Healthy, Unhealthy},
        fixtures::{of_type, worker},
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
        let status = |types, workers| judge(&Stats { types, workers, ..Stats::default() }, &declared).status;
        assert_eq!(status(vec![of_type("A", 1)], vec![worker("A")]), Healthy);
        assert_eq!(status(vec![of_type("A", 1)], vec![worker("B")]), Degraded);
        assert_eq!(status(vec![of_type("A", 0)], vec![]), Healthy, "no job waits");
        assert_eq!(status(vec![of_type("B", 1)], vec![]), Healthy, "another service's type");
    }
}
