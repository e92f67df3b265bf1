//! The layers that an application's `tracing` subscriber needs.

use opentelemetry::InstrumentationScope;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::{Filter, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    capture::capture_layer, error::TelemetryError, log_records::LogRecords, log_writer::SCOPE_TARGET, logs::Logs,
    panic_log::log_panics, provider::Telemetry,
};

/// Crates that the exporters use. What they log in an export would be exported by the next one, and so on.
const EXPORTING: [&str; 7] = ["hyper", "hyper_util", "h2", "tonic", "tower", "reqwest", "opentelemetry"];

type Layers<S> = Vec<Box<dyn Layer<S> + Send + Sync>>;

impl Telemetry {
    /// The layers for an application with its own `tracing` subscriber: events of handlers are captured, and if traces and
    /// logs are exported, its spans join the traces, and its events become log records. [`TelemetryBuilder::install`](crate::TelemetryBuilder::install) adds
    /// them itself.
    ///
    /// `RUST_LOG` and its default, `info`, apply to what is exported.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        self.layers()
    }

    fn layers<S>(&self) -> Layers<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let mut layers: Layers<S> = vec![capture_layer().boxed()];
        if let Some(tracer) = self.tracer(InstrumentationScope::builder("tracing").build()) {
            let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
            // Events become log records. Events of spans are deprecated.
            let is_span = filter_fn(|metadata| metadata.is_span() && metadata.target() != SCOPE_TARGET);
            let spans = spans.with_tracked_inactivity(false);
            layers.push(spans.with_filter(is_span.and(self.exported())).boxed());
        }
        if let Some(loggers) = self.loggers() {
            let scope = filter_fn(|metadata| metadata.is_span() && metadata.target() == SCOPE_TARGET);
            layers.push(LogRecords::new(loggers).with_filter(self.exported().or(scope)).boxed());
        }
        layers
    }

    /// What is exported of the application's spans and events.
    fn exported<S: Subscriber>(&self) -> impl Filter<S> + Send + Sync + use<S> {
        let levels = EnvFilter::builder().parse_lossy(self.log_filter());
        filter_fn(|metadata| !is_exporting(metadata)).and(levels)
    }

    /// Makes these layers and the log outputs the global subscriber, and logs panics there, unless the application has set
    /// a subscriber.
    pub(crate) fn install_layers(&self, outputs: Logs) -> Result<(), TelemetryError> {
        if tracing::dispatcher::has_been_set() {
            return Ok(());
        }
        let service = self.resource("service.name").unwrap_or_default();
        let (mut layers, writers) = outputs.start(&service, self.resource("deployment.environment.name").as_deref())?;
        layers.extend(self.layers());
        if tracing_subscriber::registry().with(layers).try_init().is_ok() {
            self.set_log_writers(writers);
            log_panics();
        }
        Ok(())
    }
}

fn is_exporting(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    EXPORTING.contains(&krate) || krate.starts_with("opentelemetry")
}
