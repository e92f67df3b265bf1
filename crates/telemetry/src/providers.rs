//! Methods of `Telemetry` that need OpenTelemetry's SDK.

use std::time::Duration;

use opentelemetry::{InstrumentationScope, global::BoxedTracer, metrics::MeterProvider};
use opentelemetry_sdk::{
    logs::SdkLoggerProvider,
    metrics::{data::ResourceMetrics, reader::MetricReader},
};

use crate::{
    encode::{Format, encode},
    error::ExpositionError,
    logs::LogWriters,
    provider::{Inner, Telemetry},
    sdk::{Meters, Sdk},
};

impl Telemetry {
    /// Records into the application's own meter provider, with its readers and views. There is no
    /// [`exposition`](Self::exposition) then.
    pub fn with_meter_provider(provider: impl MeterProvider + Send + Sync + 'static) -> Self {
        let meters: Meters = Box::new(move |scope| provider.meter_with_scope(scope));
        let sdk = Sdk { meters: Some(meters), ..Sdk::default() };
        Self::new(Inner { sdk, propagates: true, ..Inner::default() }, "")
    }

    /// A tracer of the configured provider. None if no spans are recorded.
    pub(crate) fn tracer(&self, scope: InstrumentationScope) -> Option<BoxedTracer> {
        self.0.sdk.tracers.as_ref().map(|tracers| tracers(scope))
    }

    pub(crate) fn loggers(&self) -> Option<&SdkLoggerProvider> {
        self.0.sdk.loggers.as_ref()
    }

    pub(crate) fn resource(&self, key: &'static str) -> Option<String> {
        self.0.sdk.resource(key)
    }

    pub(crate) fn log_filter(&self) -> &str {
        &self.0.sdk.log_filter
    }

    /// Collects all metrics and writes them as text, for the answer to a scrape.
    ///
    /// Runs all callbacks of observable instruments. From async code, call it on a thread that may block.
    pub fn exposition(&self, format: Format) -> Result<String, ExpositionError> {
        let metrics = self.0.sdk.metrics.as_ref().ok_or(ExpositionError::NoReader)?;
        let mut collected = ResourceMetrics::default();
        metrics.reader.collect(&mut collected).map_err(|error| ExpositionError::Collect(error.to_string()))?;
        Ok(encode(&collected, &self.0.exemplars, format, metrics.scope_labels))
    }

    /// Begins the last flush of all signals at once, so that a line about one signal is no lost log record of another.
    #[cfg(feature = "otlp")]
    pub(crate) fn close_deliveries(&self) {
        self.0.sdk.deliveries.iter().for_each(|delivery| delivery.close());
    }

    /// Pushes the last metrics and shuts the meter provider down. Blocks.
    pub(crate) fn shut_metrics_down(&self, timeout: Duration) {
        let Some(metrics) = &self.0.sdk.metrics else { return };
        #[cfg(feature = "otlp")]
        if let Some(push) = &metrics.push {
            push.finish(timeout);
        }
        let _ = metrics.provider.shutdown_with_timeout(timeout);
    }

    /// Exports the last spans and shuts the tracer provider down. Blocks.
    pub(crate) fn shut_traces_down(&self, timeout: Duration) {
        let _ = self.0.sdk.traces.as_ref().map(|traces| traces.shutdown_with_timeout(timeout));
    }

    /// Exports the last log records and shuts the logger provider down. Blocks.
    pub(crate) fn shut_logs_down(&self, timeout: Duration) {
        let _ = self.0.sdk.loggers.as_ref().map(|loggers| loggers.shutdown_with_timeout(timeout));
    }

    /// Remembers the log outputs, to flush them at the end.
    pub(crate) fn set_log_writers(&self, writers: LogWriters) {
        let _first = self.0.sdk.log_writers.set(writers);
    }

    pub(crate) fn flush_log_lines(&self, limit: Duration) {
        if let Some(writers) = self.0.sdk.log_writers.get() {
            writers.flush_within(limit);
        }
    }
}
