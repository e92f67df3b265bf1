//! `Telemetry`: where an application says that it wants metrics, and where they go.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{Meter, MeterProvider, noop::NoopMeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{
        Aggregation, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
        data::ResourceMetrics, reader::MetricReader,
    },
};
use uuid::Uuid;

use super::{
    catalogue::{CATALOGUE, Kind, QUEUE_TIME},
    encode::{Format, encode},
    exemplars::Exemplars,
    process,
};

/// Sets of labels that are kept apart of metrics by job type and error code; what is beyond is one series. A hundred job types with
/// 58 codes of two outcomes are the most. For all others OpenTelemetry's limit will do.
const SERIES: usize = 20_000;

/// The library's own meter.
const SCOPE: &str = "async_endpoints";

/// The process, among those of its service.
const INSTANCE: &str = "service.instance.id";

/// Where metrics go: to `/metrics`, to a collector, or to an application's own meter provider.
///
/// Made once, and given to the [builder](crate::Builder::telemetry). Without it nothing is measured and there is no `/metrics`.
///
/// ```
/// use async_endpoints::{AsyncEndpoints, MemoryStore, Telemetry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = Telemetry::builder().service_name("reports").build()?;
/// let endpoints = AsyncEndpoints::builder(MemoryStore::new()).telemetry(&telemetry).build()?;
/// // What handlers measure goes the same way.
/// let pages = telemetry.meter("reports").u64_counter("report.pages").build();
/// pages.add(7, &[]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    /// None: everything is switched off.
    meters: Option<Meters>,
    bounds: Arc<[f64]>,
    exemplars: Arc<Exemplars>,
    own: Option<Own>,
    attached: Mutex<Weak<()>>,
}

/// Held by the endpoints that are measured.
pub(crate) type Attached = Arc<()>;

type Meters = Box<dyn Fn(InstrumentationScope) -> Meter + Send + Sync>;

/// The provider that was set up here, for an application that has none.
struct Own {
    provider: SdkMeterProvider,
    reader: SharedReader,
    /// `service.instance.id`, for the first worker to have as its id, if it is a UUID.
    instance: Mutex<Option<Uuid>>,
    #[cfg(feature = "otlp")]
    push: Option<super::otlp::Push>,
}

/// Why telemetry cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}: {expected}")]
pub struct TelemetryError {
    /// The variable or setting.
    pub name: String,
    /// What is set.
    pub value: String,
    /// What could be set.
    pub expected: String,
}

impl Telemetry {
    /// Sets a meter provider up, for an application that has none.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder::default()
    }

    /// The same, as OpenTelemetry's standard variables say: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, and with the
    /// feature `otlp`, if an endpoint is set, `OTEL_EXPORTER_OTLP_[METRICS_]ENDPOINT`, `…_PROTOCOL`, `…_HEADERS`, `…_TIMEOUT`,
    /// `…_COMPRESSION` (gzip), `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRICS_EXPORTER`. `OTEL_SDK_DISABLED=true` switches everything off.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::builder().env().build()
    }

    /// Records into an application's own provider, whose readers and views it all then has. There is no `/metrics` then:
    /// the application has an exporter of its own.
    pub fn with_meter_provider(provider: impl MeterProvider + Send + Sync + 'static) -> Self {
        let meters = Box::new(move |scope| provider.meter_with_scope(scope));
        let telemetry = Self::new(Some(meters), QUEUE_TIME.bounds().into(), None);
        process::register(&telemetry.own_meter(), "");
        telemetry
    }

    fn new(meters: Option<Meters>, bounds: Arc<[f64]>, own: Option<Own>) -> Self {
        Self(Arc::new(Inner { meters, bounds, exemplars: Arc::default(), own, attached: Mutex::default() }))
    }

    /// A meter for an application's own metrics, as those of its handlers.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.scoped(InstrumentationScope::builder(name).build())
    }

    fn scoped(&self, scope: InstrumentationScope) -> Meter {
        match &self.0.meters {
            Some(meters) => meters(scope),
            None => NoopMeterProvider::new().meter_with_scope(scope),
        }
    }

    /// For one set of endpoints at a time: gauges that two tell of have the value of the one that was asked last.
    pub(crate) fn attach(&self) -> Option<Attached> {
        let mut attached = self.0.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.strong_count() > 0 {
            return None;
        }
        let new = Attached::default();
        *attached = Arc::downgrade(&new);
        Some(new)
    }

    /// Whether anything is measured.
    pub(crate) fn is_on(&self) -> bool {
        self.0.meters.is_some()
    }

    /// Sends what was not sent yet and ends, within `patience`. Call it last, when [`serve`](crate::AsyncEndpoints::serve)
    /// has returned. A collector that does not answer does not hold it up.
    pub async fn shutdown(&self, patience: Duration) {
        let Some(own) = &self.0.own else { return };
        #[cfg(feature = "otlp")]
        if let Some(push) = &own.push {
            push.finish(patience).await;
        }
        let _ = own.provider.shutdown_with_timeout(patience);
    }

    /// The library's own meter.
    pub(crate) fn own_meter(&self) -> Meter {
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
        self.scoped(scope.build())
    }

    /// The id that the process has for whoever reads its metrics, for one worker.
    pub(crate) fn take_instance(&self) -> Option<Uuid> {
        self.0.own.as_ref()?.instance.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Of the histograms of jobs.
    pub(crate) fn bounds(&self) -> &Arc<[f64]> {
        &self.0.bounds
    }

    pub(crate) fn exemplars(&self) -> &Arc<Exemplars> {
        &self.0.exemplars
    }

    /// Whether there is something for `/metrics` to show.
    pub(crate) fn is_scraped(&self) -> bool {
        self.0.own.is_some()
    }

    /// Whether metrics are read without a scrape: by the OTLP push or by an application's own provider.
    pub(crate) fn is_read_elsewhere(&self) -> bool {
        match &self.0.own {
            #[cfg(feature = "otlp")]
            Some(own) => own.push.is_some(),
            #[cfg(not(feature = "otlp"))]
            Some(_) => false,
            None => self.is_on(),
        }
    }

    /// What `/metrics` shows; an error if a callback of the application's has panicked, as the SDK collects nothing then.
    pub(crate) fn scrape(&self, format: Format) -> Result<String, OTelSdkError> {
        let mut collected = ResourceMetrics::default();
        if let Some(own) = &self.0.own {
            own.reader.collect(&mut collected)?;
        }
        Ok(encode(&collected, &self.0.exemplars, format))
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("is_scraped", &self.is_scraped()).finish_non_exhaustive()
    }
}

/// Sets up a meter provider; made by [`Telemetry::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is measured before it is built"]
pub struct TelemetryBuilder {
    service_name: Option<String>,
    service_version: Option<String>,
    attributes: Vec<KeyValue>,
    bounds: Option<Vec<f64>>,
    disabled: bool,
    #[cfg(feature = "otlp")]
    otlp: Option<super::otlp::Otlp>,
    wrong: Option<TelemetryError>,
}

impl TelemetryBuilder {
    /// What the service is called, unless `OTEL_SERVICE_NAME` says it.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Its version, for `build_info` and `service.version`: usually `env!("CARGO_PKG_VERSION")`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.service_version = Some(version.into());
        self
    }

    /// Something else that is true of this process, for `target_info` and the resource of what is pushed.
    pub fn resource(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Upper bounds of the buckets of `async_job.queue_time`, `processing_time` and `total_time`, in seconds, in place of
    /// the default ones, which fit from 5 ms to an hour.
    pub fn job_bounds(mut self, bounds: impl Into<Vec<f64>>) -> Self {
        self.bounds = Some(bounds.into());
        self
    }

    /// Reads OpenTelemetry's standard variables, see [`Telemetry::from_env`].
    pub fn env(self) -> Self {
        self.vars(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    /// The same from any other source of variables.
    fn vars(mut self, vars: impl Fn(&str) -> Option<String>) -> Self {
        self.disabled = vars("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        #[cfg(feature = "otlp")]
        match super::otlp::Otlp::from_vars(&vars) {
            Ok(otlp) => self.otlp = otlp.or(self.otlp.filter(|_| super::otlp::is_wanted(&vars))),
            Err(wrong) => self.wrong = Some(wrong),
        }
        self
    }

    /// Pushes to a collector as well.
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, otlp: super::otlp::Otlp) -> Self {
        self.otlp = Some(otlp);
        self
    }

    /// Sets it up.
    pub fn build(self) -> Result<Telemetry, TelemetryError> {
        let bounds: Arc<[f64]> = self.bounds.as_deref().unwrap_or(QUEUE_TIME.bounds()).into();
        if self.disabled {
            return Ok(Telemetry::new(None, bounds, None));
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        check_bounds(&bounds)?;
        let (reader, (resource, instance)) = (SharedReader::default(), self.described());
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.clone())
            .with_view({
                let bounds = bounds.clone();
                move |instrument: &opentelemetry_sdk::metrics::Instrument| view(instrument, &bounds)
            })
            .build();
        #[cfg(feature = "otlp")]
        let push = self.otlp.map(|otlp| super::otlp::Push::start(otlp, reader.clone())).transpose()?;
        let meters = provider.clone();
        let own = Own {
            provider,
            reader,
            instance: Mutex::new(instance),
            #[cfg(feature = "otlp")]
            push,
        };
        let telemetry = Telemetry::new(Some(Box::new(move |scope| meters.meter_with_scope(scope))), bounds, Some(own));
        process::register(&telemetry.own_meter(), self.service_version.as_deref().unwrap_or_default());
        Ok(telemetry)
    }

    /// What is true of this process, and the id that its worker can share with it. What the environment says counts more, as
    /// OpenTelemetry wants it.
    fn described(&self) -> (Resource, Option<Uuid>) {
        let environment = Resource::builder().build();
        let said = |attribute: &KeyValue| {
            let value = environment.get(&attribute.key);
            value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
        };
        let name = self.service_name.clone().map(|name| KeyValue::new("service.name", name));
        let version = self.service_version.clone().map(|version| KeyValue::new("service.version", version));
        let instance = KeyValue::new(INSTANCE, Uuid::new_v4().to_string());
        let ours = [instance].into_iter().chain(name).chain(version).chain(self.attributes.iter().cloned());
        let resource = Resource::builder().with_attributes(ours.filter(|attribute| !said(attribute))).build();
        let instance = resource.get(&INSTANCE.into()).and_then(|id| id.as_str().parse().ok());
        (resource, instance)
    }
}

/// How the library's own metrics are kept.
fn view(instrument: &opentelemetry_sdk::metrics::Instrument, job_bounds: &[f64]) -> Option<Stream> {
    if instrument.scope().name() != SCOPE {
        return None;
    }
    let ours = CATALOGUE.iter().find(|ours| ours.name == instrument.name())?;
    let stream = Stream::builder();
    let stream = match ours.kind {
        // The least and the greatest since the start say nothing, and a series at zero has none that could be told.
        Kind::Histogram => {
            let bounds = if ours.bounds() == QUEUE_TIME.bounds() { job_bounds } else { ours.bounds() };
            stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
                boundaries: bounds.to_vec(),
                record_min_max: false,
            })
        }
        _ if ours.labels.contains(&"error_type") => stream.with_cardinality_limit(SERIES),
        _ => return None,
    };
    stream.build().ok()
}

fn check_bounds(bounds: &[f64]) -> Result<(), TelemetryError> {
    let fits = bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0) && bounds.is_sorted_by(|a, b| a < b);
    let wrong = || TelemetryError {
        name: "job_bounds".to_owned(),
        value: format!("{bounds:?}"),
        expected: "seconds in rising order are expected".to_owned(),
    };
    if fits { Ok(()) } else { Err(wrong()) }
}

/// The one reader of everything: the scrape and the push both read it, so each measurement is kept once.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }
    fn collect(&self, into: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(into)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switched_off_by_the_environment_nothing_is_set_up() {
        let vars = |name: &str| match name {
            "OTEL_SDK_DISABLED" => Some("True".to_owned()),
            name if name.ends_with("ENDPOINT") || name.ends_with("PROTOCOL") => Some("nonsense".to_owned()),
            _ => None,
        };
        let telemetry = Telemetry::builder().vars(vars).build().expect("nothing to go wrong");
        assert!(!telemetry.is_on() && !telemetry.is_scraped());
        telemetry.meter("mine").u64_counter("counted").build().add(1, &[]);
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn the_environment_can_stop_the_push_alone() {
        let none = |name: &str| (name == "OTEL_METRICS_EXPORTER").then(|| "none".to_owned());
        let builder = || Telemetry::builder().otlp(super::super::Otlp::http("http://127.0.0.1:9"));
        assert!(builder().vars(|_| None).otlp.is_some());
        assert!(builder().vars(none).otlp.is_none());
        assert!(builder().vars(none).build().expect("the rest is set up").is_scraped());
    }

    #[test]
    fn a_worker_has_the_id_of_its_process_if_that_can_be_one() {
        let told = |id: &str| Telemetry::builder().resource(KeyValue::new(INSTANCE, id.to_owned()));
        let id = Uuid::from_u128(7);
        assert_eq!(told(&id.to_string()).build().expect("telemetry").take_instance(), Some(id));
        assert_eq!(told("pod-7").build().expect("telemetry").take_instance(), None);
        assert!(Telemetry::builder().build().expect("telemetry").take_instance().is_some());
    }

    #[test]
    fn bounds_rise() {
        for wrong in [vec![1.0, 1.0], vec![2.0, 1.0], vec![0.0], vec![f64::NAN]] {
            assert!(Telemetry::builder().job_bounds(wrong).build().is_err());
        }
    }
}
