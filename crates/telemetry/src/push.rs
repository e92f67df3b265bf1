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

/// The task that pushes. It ends when this is dropped.
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
    /// Pushes at each interval, until a request asks for the last push.
    async fn run(self, mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        loop {
            let last = tokio::select! {
                () = sleep(self.interval) => None,
                done = requests.recv() => Some(done),
            };
            self.delivery.exported(1, &self.push().await);
            if let Some(done) = last {
                let _ = done.map(|done| done.send(()));
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
