//! Lines of the sender `log`.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    io,
    sync::{Arc, Mutex},
};

use async_endpoints::{
    Timestamp,
    alerts::{Alert, AlertSender, AlertStatus, AlertType, Log, Notification, Severity},
};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn notification_is_one_line_with_the_level_of_its_severity() {
    let output = Output::default();
    let writer = output.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let id = Uuid::now_v7();
    let cases = [
        (AlertStatus::Firing, Severity::Critical, "ERROR", "alert.firing", "the alert fires"),
        (AlertStatus::Firing, Severity::High, "ERROR", "alert.firing", "the alert fires"),
        (AlertStatus::Firing, Severity::Medium, "WARN", "alert.firing", "the alert fires"),
        (AlertStatus::Firing, Severity::Low, "WARN", "alert.firing", "the alert fires"),
        (AlertStatus::Resolved, Severity::Critical, "INFO", "alert.resolved", "the alert is resolved"),
    ];
    for (status, severity, ..) in cases {
        let alert = Alert {
            id,
            rule: "stuck_jobs".to_owned(),
            alert_type: AlertType::System,
            severity,
            status,
            title: "Jobs are stuck".to_owned(),
            message: "7 jobs\nare stuck.".to_owned(),
            details: json!({}),
            starts_at: Timestamp::from_micros(1_735_689_600_000_000),
            ends_at: None,
            service: "reports".to_owned(),
            instance: "worker-1".to_owned(),
        };
        Log.send(&Notification { id: Uuid::now_v7(), alert }).await.unwrap();
    }

    let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), cases.len());
    for (mut line, (_, severity, level, event, message)) in lines.into_iter().zip(cases) {
        line.as_object_mut().unwrap().remove("timestamp");
        let expected = json!({
            "level": level,
            "target": "async_endpoints",
            "message": message,
            "event": event,
            "rule": "stuck_jobs",
            "severity": severity.as_str(),
            "alert_id": id.to_string(),
            "since": "2025-01-01T00:00:00.000000Z",
            "title": "Jobs are stuck",
            "detail": "7 jobs\nare stuck.",
        });
        assert_eq!(line, expected);
    }
}
