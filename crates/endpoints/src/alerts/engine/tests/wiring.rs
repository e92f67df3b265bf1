//! Alerts of endpoints that run: start, metrics, health, stop.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    super::super::{AlertStatus::Firing, Alerts},
    fixture::{Level, Receiver, alerts, no_rules},
};
use crate::{AsyncEndpoints, BuildError, MemoryStore, Telemetry, telemetry::Format};

/// How long a test waits for an event.
const PATIENCE: Duration = Duration::from_secs(30);

fn often(alerts: Alerts) -> Alerts {
    alerts.interval(Duration::from_millis(100))
}

#[tokio::test]
async fn running_endpoints_evaluate_and_report() {
    let (level, receiver) = (Level::default(), Receiver::default());
    level.set(11.0);
    let telemetry = Telemetry::builder().build().expect("telemetry");
    let builder = AsyncEndpoints::builder(MemoryStore::new()).telemetry(&telemetry);
    let endpoints = builder.alerts(often(alerts(level.rule(), &receiver))).build().expect("endpoints");
    let running = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    let until = Instant::now() + PATIENCE;
    let mut metrics = String::new();
    let expected = [
        "async_alert_firing{rule=\"level\"} 1\n",
        "async_alert_notifications_total{outcome=\"ok\",sender=\"webhook\"} 1\n",
        "async_alert_notifications_total{outcome=\"failed\",sender=\"webhook\"} 0\n",
        "async_alert_evaluation_time_seconds_count ",
        "async_alert_last_evaluation_seconds ",
    ];
    while !expected.iter().all(|line| metrics.contains(line)) {
        assert!(Instant::now() < until, "{metrics}");
        sleep(Duration::from_millis(20)).await;
        metrics = endpoints.scrape(Format::Text).await.expect("a route").expect("metrics");
    }
    let health = endpoints.health().all().await;
    assert!(health.checks.iter().any(|check| check.name == "alerts"), "{health:?}");
    endpoints.shutdown();
    running.await.expect("no panic").expect("a clean stop");
    assert_eq!(receiver.statuses(), [Firing]);
}

#[tokio::test]
async fn endpoints_without_alerts_have_no_check() {
    let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("endpoints");
    let health = endpoints.health().all().await;
    assert!(!health.checks.iter().any(|check| check.name == "alerts"), "{health:?}");
    assert!(!endpoints.has_alerts());
}

#[test]
fn invalid_setting_is_a_build_error() {
    let receiver = Receiver::default();
    let alerts = no_rules(&receiver).sender("two words", receiver.clone());
    let error = AsyncEndpoints::builder(MemoryStore::new()).alerts(alerts).build().expect_err("invalid");
    assert!(matches!(error, BuildError::Alerts { .. }));
    let text = "invalid name of an alert sender \"two words\": expected 1–100 characters from A-Z a-z 0-9 . _ -";
    assert_eq!(error.to_string(), text);
}
