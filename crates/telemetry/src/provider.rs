//! `Telemetry`: the entry point of an application that has telemetry.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope,
    global::BoxedTracer,
    metrics::{Meter, MeterProvider, noop::NoopMeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{SdkMeterProvider, data::ResourceMetrics, reader::MetricReader},
    trace::SdkTracerProvider,
};
use uuid::Uuid;

use crate::{
    encode::{Format, encode},
    error::ExpositionError,
    exemplars::Exemplars,
    instrument::Instrument,
    log_writer,
    logs::LogWriters,
    process,
    reader::SharedReader,
    sync::lock,
    trace::Tracing,
    views::{SCOPE, Views},
};

/// Destination of traces, metrics and logs: exporters, a scrape, or the application's own providers.
///
/// Cheap to clone; all clones share the providers. See the [crate documentation](crate) for an example.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

/// What [`TelemetryBuilder`](crate::TelemetryBuilder) set up.
#[derive(Default)]
pub(crate) struct Inner {
    /// None if telemetry is disabled.
    pub(crate) meters: Option<Meters>,
    pub(crate) views: Arc<Views>,
    pub(crate) exemplars: Exemplars,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) tracing: Tracing,
    /// None if no spans are recorded.
    pub(crate) tracers: Option<Tracers>,
    /// The tracer provider that this crate set up.
    pub(crate) traces: Option<SdkTracerProvider>,
    /// None if no log records are exported.
    pub(crate) loggers: Option<SdkLoggerProvider>,
    #[cfg(feature = "otlp")]
    pub(crate) deliveries: Vec<Arc<crate::delivery::Delivery>>,
    /// None with [`Telemetry::with_meter_provider`].
    pub(crate) resource: Option<Resource>,
    pub(crate) propagates: bool,
    pub(crate) instance_id: Mutex<Option<Uuid>>,
    /// Levels by target of exported spans and log records.
    pub(crate) log_filter: String,
    /// Writers of the installed log outputs.
    pub(crate) log_writers: OnceLock<LogWriters>,
    /// Alive while a library is attached.
    pub(crate) attached: Mutex<Weak<()>>,
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

impl Telemetry {
    /// Records into the application's own meter provider, with its readers and views. There is no
    /// [`exposition`](Self::exposition) then.
    pub fn with_meter_provider(provider: impl MeterProvider + Send + Sync + 'static) -> Self {
        let meters: Meters = Box::new(move |scope| provider.meter_with_scope(scope));
        Self::new(Inner { meters: Some(meters), propagates: true, ..Inner::default() }, "")
    }

    /// Records nothing.
    pub fn disabled() -> Self {
        Self::new(Inner { propagates: true, ..Inner::default() }, "")
    }

    pub(crate) fn new(inner: Inner, version: &str) -> Self {
        let telemetry = Self(Arc::new(inner));
        let meter = telemetry.library_meter();
        process::register(&meter, version);
        log_writer::register(&meter);
        #[cfg(feature = "otlp")]
        crate::delivery::register(&telemetry.0.deliveries, &meter);
        telemetry
    }

    /// A meter for the application's own metrics. They go where all metrics go.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.scoped(InstrumentationScope::builder(name).build())
    }

    /// Starts spans, which go where all spans go.
    pub fn tracing(&self) -> &Tracing {
        &self.0.tracing
    }

    pub(crate) fn library_meter(&self) -> Meter {
        self.scoped(InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build())
    }

    pub(crate) fn measures(&self) -> bool {
        self.0.meters.is_some()
    }

    fn scoped(&self, scope: InstrumentationScope) -> Meter {
        match &self.0.meters {
            Some(meters) => meters(scope),
            None => NoopMeterProvider::new().meter_with_scope(scope),
        }
    }

    /// A tracer of the configured provider. None if no spans are recorded.
    pub(crate) fn tracer(&self, scope: InstrumentationScope) -> Option<BoxedTracer> {
        self.0.tracers.as_ref().map(|tracers| tracers(scope))
    }

    pub(crate) fn loggers(&self) -> Option<&SdkLoggerProvider> {
        self.0.loggers.as_ref()
    }

    pub(crate) fn resource(&self, key: &'static str) -> Option<String> {
        Some(self.0.resource.as_ref()?.get(&key.into())?.to_string())
    }

    pub(crate) fn log_filter(&self) -> &str {
        &self.0.log_filter
    }

    /// Whether the trace contexts of callers are read: false if `OTEL_PROPAGATORS` is `none`.
    pub fn propagates(&self) -> bool {
        self.0.propagates
    }

    /// Marks a library as attached while the returned value is alive. None if another library is attached, unless nothing
    /// is recorded.
    pub(crate) fn mark_attached(&self) -> Option<Arc<()>> {
        let mut current = lock(&self.0.attached);
        if self.is_enabled() && current.strong_count() > 0 {
            return None;
        }
        let attached = Arc::new(());
        *current = Arc::downgrade(&attached);
        Some(attached)
    }

    /// Sets the instruments that views apply to.
    pub(crate) fn declare(&self, catalogue: &'static [Instrument]) {
        *lock(&self.0.views.catalogue) = catalogue;
    }

    pub(crate) fn bounds(&self, instrument: &Instrument) -> &[f64] {
        self.0.views.bounds(instrument)
    }

    pub(crate) fn exemplars(&self) -> &Exemplars {
        &self.0.exemplars
    }

    /// Whether metrics are recorded: false if `OTEL_SDK_DISABLED` is `true`.
    pub fn is_enabled(&self) -> bool {
        self.0.meters.is_some()
    }

    /// Whether [`exposition`](Self::exposition) has metrics: false if disabled, or with the application's own provider.
    pub fn has_exposition(&self) -> bool {
        self.0.metrics.is_some()
    }

    /// Whether metrics are read by others than [`exposition`](Self::exposition): by an exporter or by the application's own
    /// provider.
    pub fn has_other_readers(&self) -> bool {
        match &self.0.metrics {
            Some(metrics) => metrics.is_exported,
            None => self.is_enabled(),
        }
    }

    /// Collects all metrics and writes them as text, for the answer to a scrape.
    ///
    /// Runs all callbacks of observable instruments. From async code, call it on a thread that may block.
    pub fn exposition(&self, format: Format) -> Result<String, ExpositionError> {
        let metrics = self.0.metrics.as_ref().ok_or(ExpositionError::NoReader)?;
        let mut collected = ResourceMetrics::default();
        metrics.reader.collect(&mut collected).map_err(|error| ExpositionError::Collect(error.to_string()))?;
        Ok(encode(&collected, &self.0.exemplars, format, metrics.scope_labels))
    }

    /// The resource's `service.instance.id`, for one component to use as its own id. None if it is no UUID, or was taken.
    pub fn take_instance_id(&self) -> Option<Uuid> {
        lock(&self.0.instance_id).take()
    }

    /// The resource's `service.name`; none if it is not set.
    pub fn service_name(&self) -> Option<String> {
        let name = self.0.resource.as_ref()?.get(&"service.name".into())?;
        Some(name.to_string()).filter(|name| !name.is_empty())
    }

    /// The resource's `service.version`; none if it is not set.
    pub fn service_version(&self) -> Option<String> {
        let version = self.0.resource.as_ref()?.get(&"service.version".into())?;
        Some(version.to_string()).filter(|version| !version.is_empty())
    }

    /// Begins the last flush of all signals at once, so that a line about one signal is no lost log record of another.
    pub(crate) fn close_deliveries(&self) {
        #[cfg(feature = "otlp")]
        self.0.deliveries.iter().for_each(|delivery| delivery.close());
    }

    /// Pushes the last metrics and shuts the meter provider down. Blocks.
    pub(crate) fn shut_metrics_down(&self, timeout: Duration) {
        let Some(metrics) = &self.0.metrics else { return };
        #[cfg(feature = "otlp")]
        if let Some(push) = &metrics.push {
            push.finish(timeout);
        }
        let _ = metrics.provider.shutdown_with_timeout(timeout);
    }

    /// Exports the last spans and shuts the tracer provider down. Blocks.
    pub(crate) fn shut_traces_down(&self, timeout: Duration) {
        let _ = self.0.traces.as_ref().map(|traces| traces.shutdown_with_timeout(timeout));
    }

    /// Exports the last log records and shuts the logger provider down. Blocks.
    pub(crate) fn shut_logs_down(&self, timeout: Duration) {
        let _ = self.0.loggers.as_ref().map(|loggers| loggers.shutdown_with_timeout(timeout));
    }

    /// Remembers the log outputs, to flush them at the end.
    pub(crate) fn set_log_writers(&self, writers: LogWriters) {
        let _first = self.0.log_writers.set(writers);
    }

    pub(crate) fn flush_log_lines(&self, limit: Duration) {
        if let Some(writers) = self.0.log_writers.get() {
            writers.flush_within(limit);
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("has_exposition", &self.has_exposition()).finish_non_exhaustive()
    }
}
