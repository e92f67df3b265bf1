//! The metrics of alerts.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_endpoints_telemetry::{
    Attachment, Timer,
    opentelemetry::{KeyValue, metrics::BoundCounter},
};

use super::{Measured, catalogue as c};

/// The result of sending a notification once.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// The receiver has it.
    Ok,
    /// It failed and is retried.
    Retried,
    /// It failed and is not retried.
    Failed,
}

/// Label values, in the order of [`SendOutcome`].
const OUTCOMES: [&str; 3] = ["ok", "retried", "failed"];

pub(crate) struct AlertMeter {
    /// By kind of sender, then by outcome.
    notifications: HashMap<&'static str, [BoundCounter<u64>; 3]>,
    evaluation_time: Timer,
}

impl AlertMeter {
    /// Starts all series of these kinds of senders at zero.
    fn new(attachment: &Attachment, senders: impl Iterator<Item = &'static str>) -> Self {
        let notifications = attachment.counter(&c::ALERT_NOTIFICATIONS);
        let series = |sender: &'static str| {
            OUTCOMES.map(|outcome| {
                let labels = [KeyValue::new("sender", sender), KeyValue::new("outcome", outcome)];
                let series = notifications.bind(&labels);
                series.add(0);
                series
            })
        };
        Self {
            notifications: senders.map(|sender| (sender, series(sender))).collect(),
            evaluation_time: attachment.timer(&c::ALERT_EVALUATION_TIME, &[]),
        }
    }

    pub(crate) fn sent(&self, sender: &'static str, outcome: SendOutcome) {
        if let Some(series) = self.notifications.get(sender) {
            series[outcome as usize].add(1);
        }
    }

    pub(crate) fn evaluated(&self, took: Duration) {
        self.evaluation_time.record(took, Instant::now(), Vec::new);
    }
}

impl Measured {
    /// Creates the metrics of alerts. `firing` passes each rule and whether it fires to its argument. `last_evaluation` is a
    /// time in seconds since the Unix epoch.
    pub(crate) fn alerts(
        &self,
        senders: impl Iterator<Item = &'static str>,
        firing: impl Fn(&mut dyn FnMut(&str, bool)) + Send + Sync + 'static,
        last_evaluation: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> AlertMeter {
        self.attachment.gauge(&c::ALERT_FIRING, move |gauge| {
            firing(&mut |rule, fires| {
                gauge.observe(f64::from(u8::from(fires)), &[KeyValue::new("rule", rule.to_owned())]);
            });
        });
        self.attachment.gauge(&c::ALERT_LAST_EVALUATION, move |gauge| {
            if let Some(at) = last_evaluation() {
                gauge.observe(at, &[]);
            }
        });
        AlertMeter::new(&self.attachment, senders)
    }
}
