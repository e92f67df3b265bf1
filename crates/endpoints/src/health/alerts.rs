//! The check `alerts`: whether some process evaluates the rules, and whether notifications are sent.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{StoreError, Timestamp};
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::check::{BoxError, CheckResult, HealthCheck};
use crate::stats_cache::StatsCache;

/// What the check reads of the fleet's alerts.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertVitals {
    /// The process that wrote the state last.
    pub(crate) leader: Option<String>,
    /// When the rules were evaluated last, by the store's clock.
    pub(crate) evaluated_at: Option<Timestamp>,
    /// Number of notifications to send.
    pub(crate) pending: usize,
    /// Senders whose last notification finally failed, with the reason.
    pub(crate) failures: BTreeMap<String, String>,
}

/// Reads the stored state of the alerts.
pub(crate) type ReadAlerts = Box<dyn Fn() -> BoxFuture<'static, Result<AlertVitals, StoreError>> + Send + Sync>;

pub(super) struct AlertsCheck {
    pub(super) read: ReadAlerts,
    pub(super) stats: Arc<StatsCache>,
    /// Age of the last evaluation above which the check is degraded.
    pub(super) limit: Duration,
    /// When this process was set up: before the first evaluation, the age counts from here.
    pub(super) began: Instant,
}

#[async_trait]
impl HealthCheck for AlertsCheck {
    async fn check(&self) -> Result<CheckResult, BoxError> {
        let vitals = (self.read)().await?;
        let now = self.stats.refresh().await?.now;
        Ok(judge(&vitals, now, self.began.elapsed(), self.limit))
    }
}

fn judge(vitals: &AlertVitals, now: Timestamp, up: Duration, limit: Duration) -> CheckResult {
    let AlertVitals { leader, evaluated_at, pending, failures } = vitals;
    let age = evaluated_at.map_or(up, |at| now.since(at));
    let late = (age > limit).then(|| format!("the rules were not evaluated for {:.1} s", age.as_secs_f64()));
    let failed = failures.iter().map(|(sender, reason)| format!("the sender {sender} failed: {reason}"));
    CheckResult::degraded_by(&late.into_iter().chain(failed).collect::<Vec<_>>())
        .with("leader", leader.clone())
        .with("last_evaluation", evaluated_at.map(|at| at.to_string()))
        .with("pending_notifications", *pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthStatus::{Degraded, Healthy};

    const LIMIT: Duration = Duration::from_secs(10);
    const NOW: Timestamp = Timestamp::from_micros(100_000_000);

    #[test]
    fn late_evaluation_is_degraded() {
        let at = |micros| Some(Timestamp::from_micros(micros));
        let status = |evaluated_at, up| {
            judge(&AlertVitals { evaluated_at, ..AlertVitals::default() }, NOW, Duration::from_secs(up), LIMIT).status
        };
        assert_eq!((status(at(90_000_000), 99), status(at(89_999_999), 99)), (Healthy, Degraded));
        assert_eq!((status(None, 10), status(None, 11)), (Healthy, Degraded), "before the first evaluation");
        assert_eq!(status(at(200_000_000), 99), Healthy, "statistics may be older than the evaluation");
    }

    #[test]
    fn failed_sender_is_degraded_and_named() {
        let failures = BTreeMap::from([("pager".to_owned(), "status 404".to_owned())]);
        let vitals = AlertVitals { failures, evaluated_at: Some(NOW), pending: 2, leader: Some("a".to_owned()) };
        let result = judge(&vitals, NOW, LIMIT, LIMIT);
        assert_eq!(result.status, Degraded);
        assert_eq!(result.description.as_deref(), Some("the sender pager failed: status 404"));
        let data = serde_json::json!({
            "leader": "a", "last_evaluation": NOW.to_string(), "pending_notifications": 2,
        });
        assert_eq!(serde_json::Value::Object(result.data), data);
    }
}
