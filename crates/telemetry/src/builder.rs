//! Settings of telemetry.

use opentelemetry::{
    KeyValue,
    global::{BoxedTracer, ObjectSafeTracer},
    metrics::MeterProvider,
    trace::TracerProvider,
};
use opentelemetry_sdk::trace::Sampler;

use crate::{
    destinations::Destinations,
    env::{Batch, Vars},
    error::TelemetryError,
    logs::Logs,
    provider::Telemetry,
    sdk::{Meters, Tracers},
    signal::Signal,
    trace::Tracing,
};

/// Sets telemetry up; made by [`Telemetry::builder`].
#[must_use = "nothing is recorded before `build` or `install`"]
pub struct TelemetryBuilder {
    pub(crate) service_name: Option<String>,
    pub(crate) service_version: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) bounds: Vec<(String, Vec<f64>)>,
    pub(crate) is_disabled: bool,
    pub(crate) traces: Destinations,
    pub(crate) metrics: Destinations,
    pub(crate) logs: Destinations,
    pub(crate) sampler: Sampler,
    pub(crate) span_batch: Batch,
    pub(crate) log_batch: Batch,
    pub(crate) exponential_histograms: bool,
    pub(crate) scope_labels: bool,
    pub(crate) propagates: bool,
    pub(crate) meters: Option<Meters>,
    pub(crate) tracers: Option<(Tracing, Tracers)>,
    pub(crate) outputs: Option<Logs>,
    pub(crate) log_filter: String,
    pub(crate) notices: Vec<&'static str>,
    pub(crate) invalid: Option<TelemetryError>,
}

impl Default for TelemetryBuilder {
    fn default() -> Self {
        Self {
            service_name: None,
            service_version: None,
            environment: None,
            attributes: Vec::new(),
            bounds: Vec::new(),
            is_disabled: false,
            traces: Destinations::default(),
            metrics: Destinations::default(),
            logs: Destinations::default(),
            sampler: Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            span_batch: Batch::SPANS,
            log_batch: Batch::LOGS,
            exponential_histograms: false,
            scope_labels: false,
            propagates: true,
            meters: None,
            tracers: None,
            outputs: None,
            log_filter: "info".to_owned(),
            notices: Vec::new(),
            invalid: None,
        }
    }
}

impl Telemetry {
    /// Sets telemetry up.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder::default()
    }

    /// Sets telemetry up from the environment: `Telemetry::builder().env().install()`.
    ///
    /// Metrics are recorded in any case. Signals are exported over OTLP if an endpoint is set or an exporter named (features
    /// `otlp` and, for `https:`, `otlp-tls`).
    ///
    /// | variable | supported values, default |
    /// |---|---|
    /// | `RUST_LOG`, `AE_LOG_FORMAT`, `AE_LOG_DIR` | log outputs: see [`Logs::from_env`] |
    /// | `OTEL_SDK_DISABLED` | `true` turns all three signals off; log lines stay |
    /// | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | both have precedence over the code |
    /// | `OTEL_TRACES_EXPORTER`, `OTEL_LOGS_EXPORTER` | a list of `otlp`, `console` (feature `console`), `none` |
    /// | `OTEL_METRICS_EXPORTER` | the same, and `prometheus`: [`Telemetry::exposition`] works in any case |
    /// | `OTEL_EXPORTER_OTLP_ENDPOINT` | none; `http://localhost:4318` or `:4317` if an exporter is named `otlp` |
    /// | `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf` (default), `grpc` |
    /// | `OTEL_EXPORTER_OTLP_HEADERS` | none; usually the API key |
    /// | `OTEL_EXPORTER_OTLP_TIMEOUT` | 10000 ms, with all retries; 0 is no limit |
    /// | `OTEL_EXPORTER_OTLP_COMPRESSION` | `none` (default), `gzip` |
    /// | `OTEL_EXPORTER_OTLP_{TRACES,METRICS,LOGS}_…` | the five above for one signal |
    /// | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` | `cumulative` |
    /// | `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` | `explicit_bucket_histogram` (default), `base2_exponential_bucket_histogram` |
    /// | `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRIC_EXPORT_TIMEOUT` | 60000 ms, the timeout of OTLP |
    /// | `OTEL_TRACES_SAMPLER` | `always_on`, `always_off`, `traceidratio`, or those after `parentbased_`; `parentbased_always_on` |
    /// | `OTEL_TRACES_SAMPLER_ARG` | a ratio from 0 to 1, for `traceidratio` |
    /// | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BLRP_SCHEDULE_DELAY` | 5000 ms, 1000 ms |
    /// | `OTEL_BSP_…`, `OTEL_BLRP_MAX_QUEUE_SIZE` | 2048 |
    /// | `OTEL_BSP_…`, `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE` | 512 |
    /// | `OTEL_BSP_…`, `OTEL_BLRP_EXPORT_TIMEOUT` | 30000 ms; 0 is no limit |
    /// | `OTEL_PROPAGATORS` | `tracecontext` (default), `none`; `baggage` is accepted and not passed on |
    /// | `OTEL_CONFIG_FILE` | ignored, with a log line |
    ///
    /// The case of names such as `otlp` does not matter. OpenTelemetry's SDK also reads the `OTEL_SPAN_…_COUNT_LIMIT` variables. All others have no effect.
    ///
    /// # Errors
    ///
    /// An invalid or unsupported value, or an exporter that cannot start.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::builder().env().install()
    }
}

impl TelemetryBuilder {
    /// Sets the resource's `service.name`. `OTEL_SERVICE_NAME` overrides it.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Sets the version in `build_info` and in the resource's `service.version`, usually `env!("CARGO_PKG_VERSION")`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.service_version = Some(version.into());
        self
    }

    /// Sets the resource's `deployment.environment.name`, such as `production`. `OTEL_RESOURCE_ATTRIBUTES` overrides it.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Adds a resource attribute. `OTEL_RESOURCE_ATTRIBUTES` overrides it.
    pub fn resource(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Sets the upper bucket bounds of the attached library's histograms whose names begin with `prefix`, such as
    /// `async_job.`. Of several matching prefixes, the last counts.
    pub fn bounds(mut self, prefix: impl Into<String>, bounds: impl Into<Vec<f64>>) -> Self {
        self.bounds.push((prefix.into(), bounds.into()));
        self
    }

    /// Whether each series of [`Telemetry::exposition`] has labels of its instrumentation scope, such as `otel_scope_name`.
    /// Defaults to false: names of metrics are unique without them, and they would make each line longer and each query
    /// that matches or joins series harder.
    pub fn scope_labels(mut self, scope_labels: bool) -> Self {
        self.scope_labels = scope_labels;
        self
    }

    /// Whether histograms are exported over OTLP with base-2 exponential buckets, instead of their declared bounds.
    /// [`Telemetry::exposition`] keeps the bounds. Each measurement is then recorded twice. Defaults to false.
    pub fn exponential_histograms(mut self, exponential: bool) -> Self {
        self.exponential_histograms = exponential;
        self
    }

    /// Sets which spans are recorded. Defaults to `ParentBased(AlwaysOn)`. A consumer's root span always follows the decision
    /// on the producer's span, see [`LinkedSampler`](crate::trace::LinkedSampler).
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// Exports all signals over OTLP. [`Telemetry::exposition`] works as well.
    #[cfg(feature = "otlp")]
    #[expect(clippy::needless_pass_by_value, reason = "as the setting of one signal")]
    pub fn otlp(self, otlp: crate::otlp::Otlp) -> Self {
        Signal::ALL.into_iter().fold(self, |builder, signal| match otlp.clone().at(signal, "OTLP endpoint") {
            Ok(otlp) => builder.otlp_for(signal, otlp),
            Err(invalid) => Self { invalid: Some(invalid), ..builder },
        })
    }

    /// Exports one signal over OTLP. An endpoint of HTTP contains the path here, such as `http://localhost:4318/v1/traces`.
    #[cfg(feature = "otlp")]
    pub fn otlp_for(mut self, signal: Signal, otlp: crate::otlp::Otlp) -> Self {
        self.destinations(signal).otlp = Some(otlp);
        self
    }

    /// Prints spans, log records and metrics to stdout, for development. Not for production: a blocked stdout loses them.
    #[cfg(feature = "console")]
    pub fn console(mut self) -> Self {
        for signal in Signal::ALL {
            self.destinations(signal).console = true;
        }
        self
    }

    /// Records metrics with the application's own provider. Then there is no [`Telemetry::exposition`], and metrics are not
    /// exported.
    pub fn with_meter_provider(mut self, provider: impl MeterProvider + Send + Sync + 'static) -> Self {
        self.meters = Some(Box::new(move |scope| provider.meter_with_scope(scope)));
        self
    }

    /// Starts spans with the application's own provider, which then exports them. Its sampler should be wrapped in a
    /// [`LinkedSampler`](crate::trace::LinkedSampler).
    pub fn with_tracer_provider<P>(mut self, provider: P) -> Self
    where
        P: TracerProvider + Send + Sync + 'static,
        P::Tracer: ObjectSafeTracer + Send + Sync + 'static,
    {
        self.tracers = Some(tracers(provider));
        self
    }

    /// Sets the outputs of log lines, which [`install`](Self::install) starts. Defaults to stderr.
    pub fn logs(mut self, outputs: Logs) -> Self {
        self.outputs = Some(outputs);
        self
    }

    /// Reads the variables of [`Telemetry::from_env`]. They have precedence over the settings before this call, except for
    /// [`logs`](Self::logs).
    pub fn env(self) -> Self {
        self.vars(&variable)
    }

    pub(crate) fn vars(mut self, vars: &dyn Fn(&str) -> Option<String>) -> Self {
        let vars = Vars(vars);
        self.is_disabled = vars.is_disabled();
        let read = self.read_log_outputs(&vars).and_then(|()| if self.is_disabled { Ok(()) } else { self.read(&vars) });
        if let Err(invalid) = read {
            self.invalid = Some(invalid);
        }
        self
    }

    fn read_log_outputs(&mut self, vars: &Vars<'_>) -> Result<(), TelemetryError> {
        let outputs = Logs::from_vars(|name| vars.get(name))?;
        self.outputs.get_or_insert(outputs);
        self.log_filter = vars.get("RUST_LOG").unwrap_or_else(|| std::mem::take(&mut self.log_filter));
        Ok(())
    }

    fn read(&mut self, vars: &Vars<'_>) -> Result<(), TelemetryError> {
        for signal in Signal::ALL {
            let set_in_code = std::mem::take(self.destinations(signal));
            *self.destinations(signal) = set_in_code.read(signal, vars)?;
        }
        self.sampler = vars.sampler()?.unwrap_or_else(|| self.sampler.clone());
        self.span_batch = self.span_batch.read("OTEL_BSP", vars)?;
        self.log_batch = self.log_batch.read("OTEL_BLRP", vars)?;
        self.exponential_histograms = vars.exponential_histograms()?.unwrap_or(self.exponential_histograms);
        self.propagates = vars.propagates()?.unwrap_or(self.propagates);
        self.notices = vars.notices();
        Ok(())
    }

    fn destinations(&mut self, signal: Signal) -> &mut Destinations {
        match signal {
            Signal::Traces => &mut self.traces,
            Signal::Metrics => &mut self.metrics,
            Signal::Logs => &mut self.logs,
        }
    }
}

/// The tracer of the library's spans, and tracers of other scopes.
pub(crate) fn tracers<P>(provider: P) -> (Tracing, Tracers)
where
    P: TracerProvider + Send + Sync + 'static,
    P::Tracer: ObjectSafeTracer + Send + Sync + 'static,
{
    let tracing = Tracing::new(&provider);
    (tracing, Box::new(move |scope| BoxedTracer::new(Box::new(provider.tracer_with_scope(scope)))))
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn disabled_sdk_ignores_invalid_settings() {
        let vars = |name: &str| match name {
            "OTEL_SDK_DISABLED" => Some("True".to_owned()),
            name if name.ends_with("ENDPOINT") || name.ends_with("PROTOCOL") => Some("nonsense".to_owned()),
            _ => None,
        };
        let telemetry = Telemetry::builder().vars(&vars).build().expect("disabled");
        assert!(!telemetry.is_enabled() && !telemetry.has_exposition());
        telemetry.meter("mine").u64_counter("counted").build().add(1, &[]);
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn metrics_exporter_none_disables_the_push_only() {
        let none = |name: &str| (name == "OTEL_METRICS_EXPORTER").then(|| "none".to_owned());
        let builder = || Telemetry::builder().otlp(crate::Otlp::http("http://127.0.0.1:9"));
        assert!(builder().vars(&|_: &str| None).metrics.any());
        assert!(!builder().vars(&none).metrics.any());
        assert!(builder().vars(&none).build().expect("telemetry").has_exposition());
    }

    #[test]
    fn environment_has_precedence_in_the_resource() {
        let builder =
            Telemetry::builder().service_name("code").service_version("1").resource(KeyValue::new("a", "code"));
        let of = |attributes: &'static str, name: Option<&'static str>| {
            let vars = |variable: &str| if variable == "OTEL_SERVICE_NAME" { name } else { Some(attributes) };
            let (resource, _) = builder.describe(|variable| vars(variable).map(str::to_owned)).expect("valid");
            ["service.name", "service.version", "a"].map(|key| resource.get(&key.into()).expect(key).to_string())
        };
        assert_eq!(of("", None), ["code", "1", "code"]);
        assert_eq!(of("service.name=unknown_service,a=x%20y", None), ["unknown_service", "1", "x y"]);
        assert_eq!(of("service.name=attribute,service.version=2", Some("variable")), ["variable", "2", "code"]);
    }

    #[test]
    fn instance_id_is_taken_once_if_a_uuid() {
        let with_id = |id: &str| Telemetry::builder().resource(KeyValue::new("service.instance.id", id.to_owned()));
        let id = Uuid::from_u128(7);
        let telemetry = with_id(&id.to_string()).build().expect("telemetry");
        assert_eq!((telemetry.take_instance_id(), telemetry.take_instance_id()), (Some(id), None));
        assert_eq!(with_id("pod-7").build().expect("telemetry").take_instance_id(), None);
        assert!(Telemetry::builder().build().expect("telemetry").take_instance_id().is_some());
    }

    #[test]
    fn bounds_must_ascend_above_zero() {
        for invalid in [vec![1.0, 1.0], vec![2.0, 1.0], vec![0.0], vec![f64::NAN]] {
            assert!(Telemetry::builder().bounds("async_job.", invalid).build().is_err());
        }
    }
}
