//! The check `asyncendpoints.queuedepth`: no job type has many queued jobs.
//!
//! It never has the tag `ready`: a long queue would take all processes out of a load balancer at once.

use std::{collections::HashMap, sync::Arc};

use async_endpoints_core::{
    JobName, JobStatus,
    store::{Stats, TypeStats},
};
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::{
    job_type::QUEUE_DEPTH,
    stats_cache::StatsCache,
    types::{Controls, SharedControls},
};

pub(super) struct QueueDepthCheck {
    pub(super) stats: Arc<StatsCache>,
    pub(super) controls: Arc<SharedControls>,
    /// The number of queued jobs from which on a declared type is degraded.
    pub(super) limits: HashMap<JobName, u64>,
}

#[async_trait]
impl HealthCheck for QueueDepthCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        Ok(judge(&*self.stats.refresh().await?, &*self.controls.soon().await, &self.limits))
    }
}

/// The queue of a paused type counts: a forgotten pause shows here before the queue is full.
fn judge(stats: &Stats, controls: &Controls, limits: &HashMap<JobName, u64>) -> CheckResult {
    let queued = |of_type: &TypeStats| of_type.count(JobStatus::Queued);
    let limit = |of_type: &TypeStats| limits.get(&of_type.name).copied().unwrap_or(QUEUE_DEPTH);
    let long = stats.types.iter().filter(|of_type| queued(of_type) >= limit(of_type));
    let reason = |of_type: &TypeStats| {
        let pause = if controls.pause(&of_type.name).is_some() { ", and is paused" } else { "" };
        format!("{} has {} queued jobs, limit {}{pause}", of_type.name, queued(of_type), limit(of_type))
    };
    let reasons: Vec<String> = long.map(reason).collect();
    let waiting = stats.types.iter().filter(|of_type| queued(of_type) > 0);
    let result = CheckResult::degraded_by(&reasons).with("queued_jobs", stats.types.iter().map(queued).sum::<u64>());
    waiting.fold(result, |result, of_type| result.with(&format!("queued_jobs.{}", of_type.name), queued(of_type)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        HealthStatus::{Degraded, Healthy},
        fixtures::{of_type, paused},
    };

    #[test]
    fn limit_of_each_type_decides() {
        let own = JobName::new("Own").expect("a name");
        let limits = HashMap::from([(own, 3)]);
        let status = |own, other| {
            let types = vec![of_type("Own", own), of_type("Other", other)];
            judge(&Stats { types, ..Stats::default() }, &Controls::default(), &limits).status
        };
        assert_eq!(status(2, 99), Healthy);
        assert_eq!(status(3, 0), Degraded);
        assert_eq!(status(0, 100), Degraded);
    }

    #[test]
    fn long_queue_of_paused_type_is_explained() {
        let stats = Stats { types: vec![of_type("A", 100)], ..Stats::default() };
        let result = judge(&stats, &paused("A"), &HashMap::new());
        let text = "A has 100 queued jobs, limit 100, and is paused";
        assert_eq!((result.status, result.description.as_deref()), (Degraded, Some(text)));
    }

    #[test]
    fn data_has_the_count_of_each_type() {
        let types = vec![of_type("A", 7), of_type("B", 0)];
        let data = judge(&Stats { types, ..Stats::default() }, &Controls::default(), &HashMap::new()).data;
        assert_eq!(serde_json::Value::from(data), serde_json::json!({ "queued_jobs": 7, "queued_jobs.A": 7 }));
    }
}
