//! The end: the last exports, within a time limit.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::provider::Telemetry;

/// Exports the last telemetry when it is dropped; made by [`Telemetry::flush_on_drop`].
#[derive(Debug)]
#[must_use = "dropping it ends telemetry"]
pub struct TelemetryGuard {
    telemetry: Telemetry,
    timeout: Duration,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.telemetry.shutdown_blocking(self.timeout);
    }
}

impl Telemetry {
    /// A guard that exports the last telemetry when it is dropped, and blocks for it at most `timeout`. Hold it in `main`.
    pub fn flush_on_drop(&self, timeout: Duration) -> TelemetryGuard {
        TelemetryGuard { telemetry: self.clone(), timeout }
    }

    /// Exports the last spans, log records and metrics, writes the last log lines, and ends telemetry, within `timeout`. Call
    /// it last.
    pub async fn shutdown(&self, timeout: Duration) {
        let (done, ended) = oneshot::channel();
        let telemetry = self.clone();
        let spawned = thread::Builder::new().name("async-endpoints-end".to_owned()).spawn(move || {
            telemetry.shutdown_blocking(timeout);
            let _ = done.send(());
        });
        if spawned.is_ok() {
            let _ = ended.await;
        }
    }

    /// As [`shutdown`](Self::shutdown), outside async code.
    pub fn shutdown_blocking(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        // A collector that hangs leaves time for the log lines.
        let limit = timeout * 3 / 4;
        let (done, ended) = mpsc::channel::<()>();
        #[cfg(feature = "otlp")]
        self.close_deliveries();
        // Signals do not wait for each other: each has the whole time.
        for shut_down in [Self::shut_metrics_down, Self::shut_traces_down, Self::shut_logs_down] {
            let (telemetry, done) = (self.clone(), done.clone());
            let _detached = thread::Builder::new().name("async-endpoints-end".to_owned()).spawn(move || {
                shut_down(&telemetry, limit);
                drop(done);
            });
        }
        drop(done);
        // Returns when all have dropped their senders.
        let _ = ended.recv_timeout(timeout * 7 / 8);
        self.flush_log_lines(end.saturating_duration_since(Instant::now()));
    }
}
