//! Batches of spans and log records on their way to a collector: the SDK's batch processors, with counted losses and a time
//! limit of each export.

use std::{sync::Arc, time::Duration};

use opentelemetry::{Context, InstrumentationScope, logs::Severity};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::{delivery::Delivery, env::Batch, runtime::ExportRuntime};

/// An exporter that runs on the exporters' runtime.
#[derive(Debug)]
pub(crate) struct Export<E> {
    exporter: E,
    runtime: ExportRuntime,
    limit: Duration,
    delivery: Arc<Delivery>,
}

impl<E> Export<E> {
    fn run(&self, items: usize, export: impl Future<Output = OTelSdkResult>) -> OTelSdkResult {
        self.delivery.begin_export(items);
        let result = self.runtime.wait(self.limit, export);
        self.delivery.exported(items, &result);
        result
    }
}

impl<E: SpanExporter> SpanExporter for Export<E> {
    /// Blocks: the SDK calls it on a thread of its own.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.run(batch.len(), self.exporter.export(batch))
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Export<E> {
    /// Blocks: the SDK calls it on a thread of its own.
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.run(batch.iter().count(), self.exporter.export(batch))
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A batch processor in front of which full queues are noticed.
#[derive(Debug)]
pub(crate) struct Queue<P> {
    processor: P,
    delivery: Arc<Delivery>,
}

impl Queue<BatchSpanProcessor> {
    pub(crate) fn spans(
        exporter: impl SpanExporter + 'static,
        batch: Batch,
        runtime: ExportRuntime,
        delivery: Arc<Delivery>,
    ) -> Self {
        let exporter = Export { exporter, runtime, limit: batch.timeout, delivery: delivery.clone() };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch.of_spans()).build();
        Self { processor, delivery }
    }
}

impl Queue<BatchLogProcessor> {
    pub(crate) fn log_records(
        exporter: impl LogExporter + 'static,
        batch: Batch,
        runtime: ExportRuntime,
        delivery: Arc<Delivery>,
    ) -> Self {
        let exporter = Export { exporter, runtime, limit: batch.timeout, delivery: delivery.clone() };
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(batch.of_log_records()).build();
        Self { processor, delivery }
    }
}

impl SpanProcessor for Queue<BatchSpanProcessor> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }
    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.delivery.enqueue() {
            self.processor.on_end(span);
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.delivery.close();
        let ended = self.processor.shutdown_with_timeout(timeout);
        self.delivery.log_lost();
        ended
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

impl LogProcessor for Queue<BatchLogProcessor> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.delivery.enqueue() {
            self.processor.emit(record, scope);
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.delivery.close();
        let ended = self.processor.shutdown_with_timeout(timeout);
        self.delivery.log_lost();
        ended
    }
    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.processor.event_enabled(level, target, name)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}
