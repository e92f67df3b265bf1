//! The part of `Telemetry` that needs OpenTelemetry's SDK.

use std::sync::{Arc, Mutex, OnceLock};

use opentelemetry::{
    InstrumentationScope,
    global::BoxedTracer,
    metrics::{Meter, MeterProvider, noop::NoopMeterProvider},
};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use uuid::Uuid;

use crate::{
    instrument::Instrument, log_writer, logs::LogWriters, process_metrics, reader::SharedReader, sync::lock,
    views::Views,
};

/// Providers and what belongs to them.
#[derive(Default)]
pub(crate) struct Sdk {
    /// None if telemetry is disabled.
    pub(crate) meters: Option<Meters>,
    pub(crate) views: Arc<Views>,
    pub(crate) metrics: Option<Metrics>,
    /// None if no spans are recorded.
    pub(crate) tracers: Option<Tracers>,
    /// The tracer provider that this crate set up.
    pub(crate) traces: Option<SdkTracerProvider>,
    /// None if no log records are exported.
    pub(crate) loggers: Option<SdkLoggerProvider>,
    #[cfg(feature = "otlp")]
    pub(crate) deliveries: Vec<Arc<crate::delivery::Delivery>>,
    /// None with [`Telemetry::with_meter_provider`](crate::Telemetry::with_meter_provider).
    pub(crate) resource: Option<Resource>,
    pub(crate) instance_id: Mutex<Option<Uuid>>,
    /// Levels by target of exported spans and log records.
    pub(crate) log_filter: String,
    /// Writers of the installed log outputs.
    pub(crate) log_writers: OnceLock<LogWriters>,
}

pub(crate) type Meters = Box<dyn Fn(InstrumentationScope) -> Meter + Send + Sync>;
pub(crate) type Tracers = Box<dyn Fn(InstrumentationScope) -> BoxedTracer + Send + Sync>;

/// The meter provider that this crate set up.
pub(crate) struct Metrics {
    pub(crate) provider: SdkMeterProvider,
    pub(crate) reader: SharedReader,
    /// Whether each exposed series has its instrumentation scope in labels.
    pub(crate) scope_labels: bool,
    /// Whether metrics are exported as well.
    pub(crate) is_exported: bool,
    #[cfg(feature = "otlp")]
    pub(crate) push: Option<crate::push::Push>,
}

impl Sdk {
    /// Registers the metrics of the process and of this crate.
    pub(crate) fn register(&self, meter: &Meter, version: &str) {
        process_metrics::register(meter, version);
        log_writer::register(meter);
        #[cfg(feature = "otlp")]
        crate::delivery::register(&self.deliveries, meter);
    }

    pub(crate) fn meter(&self, scope: InstrumentationScope) -> Meter {
        match &self.meters {
            Some(meters) => meters(scope),
            None => NoopMeterProvider::new().meter_with_scope(scope),
        }
    }

    pub(crate) fn declare(&self, catalogue: &'static [Instrument]) {
        *lock(&self.views.catalogue) = catalogue;
    }

    pub(crate) fn bounds<'a>(&'a self, instrument: &Instrument) -> &'a [f64] {
        self.views.bounds(instrument)
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.meters.is_some()
    }

    pub(crate) fn has_exposition(&self) -> bool {
        self.metrics.is_some()
    }

    pub(crate) fn has_other_readers(&self) -> bool {
        match &self.metrics {
            Some(metrics) => metrics.is_exported,
            None => self.is_enabled(),
        }
    }

    pub(crate) fn take_instance_id(&self) -> Option<Uuid> {
        lock(&self.instance_id).take()
    }

    pub(crate) fn resource(&self, key: &'static str) -> Option<String> {
        Some(self.resource.as_ref()?.get(&key.into())?.to_string())
    }
}
