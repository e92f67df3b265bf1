//! The push of metrics over OTLP.

use std::{sync::Arc, time::Duration};

use opentelemetry_otlp::{ExporterBuildError, MetricExporter};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{data::ResourceMetrics, exporter::PushMetricExporter, reader::MetricReader},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{delivery::Delivery, exporter, otlp::Otlp, reader::SharedReader, runtime::ExportRuntime, signal::Signal};

/// The task that pushes. It ends when this is dropped, without a last push: the reader is shut down by then.
pub(crate) struct Push {
    finish: mpsc::UnboundedSender<oneshot::Sender<()>>,
    runtime: ExportRuntime,
    delivery: Arc<Delivery>,
}

impl Push {
    pub(crate) fn start(otlp: &Otlp, reader: SharedReader, runtime: ExportRuntime) -> Result<Self, ExporterBuildError> {
        let delivery = Arc::new(Delivery::new(Signal::Metrics, otlp, 0));
        let exporter = runtime.enter(|| exporter::metrics(otlp, &delivery.last_error))?;
        let pusher =
            Pusher { interval: otlp.interval, timeout: otlp.timeout, exporter, delivery: delivery.clone(), reader };
        let (finish, requests) = mpsc::unbounded_channel();
        let _detached = runtime.spawn(pusher.run(requests));
        Ok(Self { finish, runtime, delivery })
    }

    /// Pushes once more and ends the task. Returns after `limit` at the latest. Not for threads of a runtime.
    pub(crate) fn finish(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        self.delivery.close();
        if self.finish.send(done).is_ok() {
            let finished = async { finished.await.map_err(|_| OTelSdkError::AlreadyShutdown) };
            let ended = self.runtime.wait(limit, finished);
            if ended.is_err() {
                self.delivery.exported(1, &ended);
            }
            self.delivery.log_lost();
        }
    }
}

struct Pusher {
    interval: Duration,
    timeout: Duration,
    exporter: MetricExporter,
    delivery: Arc<Delivery>,
    reader: SharedReader,
}

impl Pusher {
    /// Pushes at each interval, until a request asks for the last push or the sender of requests is dropped.
    async fn run(self, mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        loop {
            let last = tokio::select! {
                () = sleep(self.interval) => None,
                request = requests.recv() => match request {
                    Some(done) => Some(done),
                    None => return,
                },
            };
            self.delivery.exported(1, &self.push().await);
            if let Some(done) = last {
                let _ = done.send(());
                return;
            }
        }
    }

    async fn push(&self) -> OTelSdkResult {
        let mut collected = ResourceMetrics::default();
        self.reader.collect(&mut collected)?;
        let exported = timeout(self.timeout, self.exporter.export(&collected)).await;
        exported.unwrap_or(Err(OTelSdkError::Timeout(self.timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the task to its end, and returns how many pushes failed.
    fn failed_pushes(finish: impl FnOnce(mpsc::UnboundedSender<oneshot::Sender<()>>)) -> usize {
        let otlp = Otlp::http("http://localhost:4318");
        let runtime = ExportRuntime::start().expect("a runtime");
        let delivery = Arc::new(Delivery::new(Signal::Metrics, &otlp, 0));
        let exporter = runtime.enter(|| exporter::metrics(&otlp, &delivery.last_error)).expect("an exporter");
        let reader = SharedReader::default();
        reader.shutdown_with_timeout(Duration::ZERO).expect("the only shutdown");
        let (sender, requests) = mpsc::unbounded_channel();
        finish(sender);
        // Failures count from here on.
        delivery.close();
        let pusher =
            Pusher { interval: otlp.interval, timeout: otlp.timeout, exporter, delivery: delivery.clone(), reader };
        let task = runtime.spawn(pusher.run(requests)).expect("a running runtime");
        let ended = runtime.wait(Duration::from_secs(60), async {
            task.await.expect("no panic");
            Ok(())
        });
        ended.expect("the task ends");
        delivery.unsent()
    }

    #[test]
    fn dropped_telemetry_does_not_push_from_a_reader_that_is_shut_down() {
        assert_eq!(failed_pushes(drop), 0);
        let (done, _finished) = oneshot::channel();
        let requested = |sender: mpsc::UnboundedSender<_>| sender.send(done).expect("the task listens");
        assert_eq!(failed_pushes(requested), 1, "a requested push reports that it failed");
    }
}
