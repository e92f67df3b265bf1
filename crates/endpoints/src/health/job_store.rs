//! The check `asyncendpoints`: the store accepts writes, answers fast, and no jobs are stuck.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::Store;
use async_trait::async_trait;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::{stats_cache::StatsCache, store_call::within, stuck};

/// Latency of the probe above which the store is degraded.
const SLOW: Duration = Duration::from_millis(1000);
/// Number of stuck jobs above which the store is degraded.
const MAX_STUCK: u64 = 10;

pub(super) struct JobStoreCheck {
    pub(super) store: Arc<dyn Store>,
    pub(super) stats: Arc<StatsCache>,
    pub(super) max_retries: u32,
}

#[async_trait]
impl HealthCheck for JobStoreCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        let began = Instant::now();
        within(self.store.probe()).await?;
        let latency = began.elapsed();
        let stuck = stuck::total(&*self.stats.refresh().await?);
        Ok(judge(latency, stuck).with("max_retries", self.max_retries))
    }
}

fn judge(latency: Duration, stuck: u64) -> CheckResult {
    let mut reasons = Vec::new();
    if latency > SLOW {
        reasons.push(format!("the store took {} ms, more than {} ms", latency.as_millis(), SLOW.as_millis()));
    }
    if stuck > MAX_STUCK {
        reasons.push(format!("{stuck} jobs are stuck, more than {MAX_STUCK}"));
    }
    let milliseconds = latency.as_micros() as f64 / 1000.0;
    CheckResult::degraded_by(&reasons).with("store_latency_ms", milliseconds).with("stuck_jobs", stuck)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthStatus::{Degraded, Healthy};

    #[test]
    fn thresholds_degrade_the_store() {
        assert_eq!(judge(SLOW, MAX_STUCK).status, Healthy);
        assert_eq!(judge(SLOW + Duration::from_millis(1), 0).status, Degraded);
        assert_eq!(judge(Duration::ZERO, MAX_STUCK + 1).status, Degraded);
        let both = judge(Duration::from_millis(1500), 11);
        let text = "the store took 1500 ms, more than 1000 ms; 11 jobs are stuck, more than 10";
        assert_eq!(both.description.as_deref(), Some(text));
        assert_eq!((&both.data["store_latency_ms"], &both.data["stuck_jobs"]), (&1500.0.into(), &11.into()));
    }
}
