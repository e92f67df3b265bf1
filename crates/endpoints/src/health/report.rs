//! The report of all checks, in the JSON that dashboards for ASP.NET health checks read.

use std::{borrow::Cow, time::Duration};

use async_endpoints_core::Timestamp;
use axum::http::StatusCode;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::check::{CheckResult, HealthStatus};

/// The last results of several checks. Serializes as the body of `/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The worst status of the checks; Healthy without checks.
    pub status: HealthStatus,
    /// The checks. Empty in a report for a caller without access.
    pub checks: Vec<CheckReport>,
    /// Duration of the slowest check: they run side by side.
    #[serde(serialize_with = "time_span")]
    pub total_duration: Duration,
}

/// The last result of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    /// The check's name.
    pub name: Cow<'static, str>,
    /// The status.
    pub status: HealthStatus,
    /// When the status began, by the clock of this process. None for a check that has not returned in time, and for one that was
    /// not run yet. Not part of the JSON.
    #[serde(skip)]
    pub since: Option<Timestamp>,
    /// A description, or the error.
    pub description: Option<String>,
    /// How long the check took. Serialized as `hh:mm:ss.fffffff`.
    #[serde(serialize_with = "time_span")]
    pub duration: Duration,
    /// The check's tags.
    pub tags: Vec<String>,
    /// Facts, by name.
    pub data: Map<String, Value>,
}

impl HealthReport {
    pub(super) fn of(checks: Vec<CheckReport>) -> Self {
        Self {
            status: checks.iter().map(|check| check.status).min().unwrap_or(HealthStatus::Healthy),
            total_duration: checks.iter().map(|check| check.duration).max().unwrap_or_default(),
            checks,
        }
    }

    /// The report for a caller without access: the status alone.
    pub(crate) fn status_only(self) -> Self {
        Self { checks: Vec::new(), total_duration: Duration::ZERO, ..self }
    }

    /// 503 for Unhealthy, else 200.
    pub const fn status_code(&self) -> StatusCode {
        match self.status {
            HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
            HealthStatus::Degraded | HealthStatus::Healthy => StatusCode::OK,
        }
    }
}

impl CheckReport {
    pub(super) fn new(name: Cow<'static, str>, tags: Vec<String>, duration: Duration, result: CheckResult) -> Self {
        let CheckResult { status, description, data } = result;
        Self { name, status, since: None, description, duration, tags, data }
    }
}

/// .NET's format of a time span: `00:00:01.5000000`, and `1.00:00:00.0000000` from a day on.
fn time_span<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let days = if days > 0 { format!("{days}.") } else { String::new() };
    let fraction = duration.subsec_nanos() / 100;
    serializer.collect_str(&format_args!("{days}{hours:02}:{minutes:02}:{:02}.{fraction:07}", seconds % 60))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: HealthStatus, duration: Duration) -> CheckReport {
        let result = CheckResult { status, description: Some("slow".to_owned()), data: Map::new() };
        CheckReport::new("store".into(), vec!["ready".to_owned()], duration, result.with("store_latency_ms", 1500))
    }

    #[test]
    fn report_has_the_shape_of_aspnet() {
        let report = HealthReport::of(vec![check(HealthStatus::Degraded, Duration::from_micros(1_500_012))]);
        let expected = json!({
            "status": "Degraded",
            "checks": [{
                "name": "store", "status": "Degraded", "description": "slow", "duration": "00:00:01.5000120",
                "tags": ["ready"], "data": { "store_latency_ms": 1500 },
            }],
            "totalDuration": "00:00:01.5000120",
        });
        assert_eq!(serde_json::to_value(report).expect("JSON"), expected);
    }

    #[test]
    fn long_duration_has_days() {
        let report = HealthReport::of(vec![check(HealthStatus::Healthy, Duration::from_secs(2 * 86_400 + 3661))]);
        assert_eq!(serde_json::to_value(report).expect("JSON")["totalDuration"], json!("2.01:01:01.0000000"));
    }

    #[test]
    fn worst_status_decides() {
        use HealthStatus::{Degraded, Healthy, Unhealthy};
        let worst = |statuses: &[HealthStatus]| {
            HealthReport::of(statuses.iter().map(|status| check(*status, Duration::ZERO)).collect())
        };
        assert_eq!((worst(&[]).status, worst(&[]).status_code()), (Healthy, StatusCode::OK));
        assert_eq!(worst(&[Healthy, Degraded]).status_code(), StatusCode::OK);
        assert_eq!(worst(&[Healthy, Degraded]).status, Degraded);
        assert_eq!(worst(&[Unhealthy, Degraded, Healthy]).status_code(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
