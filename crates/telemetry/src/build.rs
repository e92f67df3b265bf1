//! Makes the providers that the settings ask for.

use std::sync::{Arc, Mutex};

use opentelemetry::{KeyValue, metrics::MeterProvider};
#[cfg(feature = "otlp")]
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::SdkMeterProvider,
    resource::{SdkProvidedResourceDetector, TelemetryResourceDetector},
    trace::{Sampler, SdkTracerProvider},
};
use uuid::Uuid;

#[cfg(any(feature = "console", feature = "otlp"))]
use crate::trace::RedactSpans;
#[cfg(feature = "otlp")]
use crate::{
    batch::Queue, delivery::Delivery, exporter, otlp::Otlp, push::Push, runtime::ExportRuntime, signal::Signal,
};
use crate::{
    builder::{TelemetryBuilder, tracers, variable},
    error::TelemetryError,
    log_writer::log_safely,
    logs::{LogOutput, Logs},
    provider::{Inner, Telemetry},
    reader::SharedReader,
    resource,
    sdk::{Meters, Metrics, Sdk},
    trace::LinkedSampler,
    views::Views,
};

/// Resource attribute that identifies the process among those of its service.
const INSTANCE_ID: &str = "service.instance.id";

impl TelemetryBuilder {
    /// Makes the providers and starts the exporters. Nothing becomes global: [`Telemetry::layer`] is for the application's
    /// subscriber.
    ///
    /// # Errors
    ///
    /// An invalid or unsupported setting, or an exporter that cannot start.
    pub fn build(self) -> Result<Telemetry, TelemetryError> {
        let notices = self.notices.clone();
        let telemetry = self.assemble()?;
        log(&notices);
        Ok(telemetry)
    }

    /// As [`build`](Self::build). Then makes [`Telemetry::layer`] and the log outputs the global `tracing` subscriber, unless
    /// the application has set one.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn install(self) -> Result<Telemetry, TelemetryError> {
        let notices = self.notices.clone();
        let outputs = self.outputs.clone().unwrap_or_else(|| Logs::new().output(LogOutput::stderr()));
        let telemetry = self.assemble()?;
        telemetry.install_layers(outputs)?;
        log(&notices);
        Ok(telemetry)
    }

    fn assemble(mut self) -> Result<Telemetry, TelemetryError> {
        if let Some(invalid) = self.invalid {
            return Err(invalid);
        }
        self.bounds.iter().try_for_each(|(prefix, bounds)| check_bounds(prefix, bounds))?;
        let (resource, instance_id) = self.describe(variable)?;
        let version = self.service_version.take().unwrap_or_default();
        let propagates = self.propagates;
        let sdk = Sdk {
            resource: Some(resource.clone()),
            log_filter: std::mem::take(&mut self.log_filter),
            ..Sdk::default()
        };
        if self.is_disabled {
            return Ok(Telemetry::new(Inner { sdk, propagates, ..Inner::default() }, &version));
        }
        let mut exports = Exports::new(resource);
        let views = Arc::new(Views { bounds: std::mem::take(&mut self.bounds), ..self.views() });
        let metrics = if self.meters.is_some() { None } else { Some(self.metrics(&mut exports, &views)?) };
        let traces = if self.tracers.is_some() { None } else { self.traces(&mut exports)? };
        let loggers = self.loggers(&mut exports)?;
        let meters = self.meters.or_else(|| metrics.as_ref().map(|metrics| meters(metrics.provider.clone())));
        let follows_parents = self.tracers.is_none() && matches!(self.sampler, Sampler::ParentBased(_));
        let (tracing, tracers) = self.tracers.or_else(|| traces.clone().map(tracers)).unzip();
        let tracing = tracing.map(|tracing| if follows_parents { tracing.following_parents() } else { tracing });
        let sdk = Sdk {
            meters,
            views,
            metrics,
            tracers,
            traces,
            loggers,
            instance_id: Mutex::new(instance_id),
            #[cfg(feature = "otlp")]
            deliveries: exports.deliveries,
            ..sdk
        };
        let tracing = tracing.unwrap_or_default();
        Ok(Telemetry::new(Inner { sdk, tracing, propagates, ..Inner::default() }, &version))
    }

    fn views(&self) -> Views {
        let readers = 2 + usize::from(self.has_console_metrics());
        Views { exponential: self.has_exponential_push().then_some(readers), ..Views::default() }
    }

    fn has_console_metrics(&self) -> bool {
        #[cfg(feature = "console")]
        return self.metrics.console;
        #[cfg(not(feature = "console"))]
        false
    }

    fn has_exponential_push(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.exponential_histograms && self.metrics.otlp.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    fn metrics(&self, exports: &mut Exports, views: &Arc<Views>) -> Result<Metrics, TelemetryError> {
        let (reader, view) = (SharedReader::default(), views.clone());
        let builder = SdkMeterProvider::builder()
            .with_resource(exports.resource.clone())
            .with_reader(reader.clone())
            .with_view(move |instrument: &opentelemetry_sdk::metrics::Instrument| view.view(instrument));
        #[cfg(feature = "console")]
        let builder = match self.metrics.console {
            true => builder.with_periodic_exporter(opentelemetry_stdout::MetricExporter::default()),
            false => builder,
        };
        // The last reader has the exponential histograms.
        #[cfg(feature = "otlp")]
        let (builder, pushed) = match self.has_exponential_push() {
            true => {
                let pushed = SharedReader::default();
                (builder.with_reader(pushed.clone()), pushed)
            }
            false => (builder, reader.clone()),
        };
        Ok(Metrics {
            provider: builder.build(),
            reader,
            scope_labels: self.scope_labels,
            is_exported: self.metrics.any(),
            #[cfg(feature = "otlp")]
            push: match &self.metrics.otlp {
                Some(otlp) => Some(exports.start(otlp, |runtime| Push::start(otlp, pushed, runtime))?),
                None => None,
            },
        })
    }

    fn traces(&self, exports: &mut Exports) -> Result<Option<SdkTracerProvider>, TelemetryError> {
        if !self.traces.any() {
            return Ok(None);
        }
        let builder = SdkTracerProvider::builder()
            .with_resource(exports.resource.clone())
            .with_sampler(LinkedSampler::new(self.sampler.clone()));
        #[cfg(feature = "otlp")]
        let builder = match &self.traces.otlp {
            Some(otlp) => {
                let delivery = exports.delivery(Signal::Traces, otlp, self.span_batch.queue);
                builder.with_span_processor(exports.start(otlp, |runtime| {
                    let exporter = runtime.enter(|| exporter::spans(otlp, &delivery.last_error))?;
                    Ok(RedactSpans(Queue::spans(exporter, self.span_batch, runtime, delivery)))
                })?)
            }
            None => builder,
        };
        #[cfg(feature = "console")]
        let builder = match self.traces.console {
            true => builder.with_span_processor(RedactSpans(crate::console::spans())),
            false => builder,
        };
        Ok(Some(builder.build()))
    }

    fn loggers(&self, exports: &mut Exports) -> Result<Option<SdkLoggerProvider>, TelemetryError> {
        if !self.logs.any() {
            return Ok(None);
        }
        let builder = SdkLoggerProvider::builder().with_resource(exports.resource.clone());
        #[cfg(feature = "otlp")]
        let builder = match &self.logs.otlp {
            Some(otlp) => {
                let delivery = exports.delivery(Signal::Logs, otlp, self.log_batch.queue);
                builder.with_log_processor(exports.start(otlp, |runtime| {
                    let exporter = runtime.enter(|| exporter::log_records(otlp, &delivery.last_error))?;
                    Ok(Queue::log_records(exporter, self.log_batch, runtime, delivery))
                })?)
            }
            None => builder,
        };
        #[cfg(feature = "console")]
        let builder = match self.logs.console {
            true => builder.with_log_processor(crate::console::log_records()),
            false => builder,
        };
        Ok(Some(builder.build()))
    }

    /// The resource, and its instance id if that is a UUID. As OpenTelemetry specifies, the environment has precedence.
    pub(crate) fn describe(
        &self,
        vars: impl Fn(&str) -> Option<String>,
    ) -> Result<(Resource, Option<Uuid>), TelemetryError> {
        let of = |key: &'static str, value: &Option<String>| value.clone().map(|value| KeyValue::new(key, value));
        let name = of("service.name", &self.service_name);
        let version = of("service.version", &self.service_version);
        let environment = of("deployment.environment.name", &self.environment);
        let instance_id = KeyValue::new(INSTANCE_ID, Uuid::new_v4().to_string());
        let declared = [instance_id].into_iter().chain(name).chain(version).chain(environment);
        let declared = declared.chain(self.attributes.iter().cloned());
        let resource = Resource::builder_empty()
            .with_detectors(&[Box::new(SdkProvidedResourceDetector), Box::new(TelemetryResourceDetector)])
            .with_attributes(declared.chain(resource::from_vars(vars)?))
            .build();
        let instance_id = resource.get(&INSTANCE_ID.into()).and_then(|id| id.as_str().parse().ok());
        Ok((resource, instance_id))
    }
}

/// What the exporters of all signals share.
struct Exports {
    resource: Resource,
    #[cfg(feature = "otlp")]
    runtime: Option<ExportRuntime>,
    #[cfg(feature = "otlp")]
    deliveries: Vec<Arc<Delivery>>,
}

impl Exports {
    fn new(resource: Resource) -> Self {
        Self {
            resource,
            #[cfg(feature = "otlp")]
            runtime: None,
            #[cfg(feature = "otlp")]
            deliveries: Vec::new(),
        }
    }

    #[cfg(feature = "otlp")]
    fn delivery(&mut self, signal: Signal, otlp: &Otlp, capacity: usize) -> Arc<Delivery> {
        let delivery = Arc::new(Delivery::new(signal, otlp, capacity));
        self.deliveries.push(delivery.clone());
        delivery
    }

    /// Starts an exporter on the shared runtime.
    #[cfg(feature = "otlp")]
    fn start<T>(
        &mut self,
        otlp: &Otlp,
        start: impl FnOnce(ExportRuntime) -> Result<T, ExporterBuildError>,
    ) -> Result<T, TelemetryError> {
        otlp.check()?;
        let failed = |reason: String| TelemetryError::Exporter { endpoint: otlp.without_credentials(), reason };
        let runtime = match &self.runtime {
            Some(runtime) => runtime.clone(),
            None => ExportRuntime::start().map_err(|error| failed(error.to_string()))?,
        };
        self.runtime = Some(runtime.clone());
        start(runtime).map_err(|error| failed(error.to_string()))
    }
}

fn meters(provider: SdkMeterProvider) -> Meters {
    Box::new(move |scope| provider.meter_with_scope(scope))
}

fn log(notices: &[&'static str]) {
    for notice in notices {
        log_safely(|| tracing::warn!("{notice}"));
    }
}

fn check_bounds(prefix: &str, bounds: &[f64]) -> Result<(), TelemetryError> {
    if bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0) && bounds.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let name = format!("bounds of {prefix}");
    Err(TelemetryError::setting(name, format!("{bounds:?}"), "ascending numbers above zero"))
}
