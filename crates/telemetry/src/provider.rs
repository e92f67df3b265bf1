//! `Telemetry`: the entry point of an application that has metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope,
    metrics::{Meter, MeterProvider, noop::NoopMeterProvider},
};
use opentelemetry_sdk::metrics::{SdkMeterProvider, data::ResourceMetrics, reader::MetricReader};
use uuid::Uuid;

use crate::{
    encode::{Format, encode},
    error::ExpositionError,
    exemplars::Exemplars,
    instrument::Instrument,
    log_writer, process,
    reader::SharedReader,
    sync::lock,
    trace::Tracing,
    views::{SCOPE, Views},
};

/// Destination of metrics: a scrape, an OTLP collector, or the application's own meter provider.
///
/// Cheap to clone; all clones share one meter provider. See the [crate documentation](crate) for an example.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    /// None if telemetry is disabled.
    meters: Option<Meters>,
    views: Arc<Views>,
    exemplars: Exemplars,
    sdk: Option<Sdk>,
    tracing: Tracing,
    /// Alive while a library is attached.
    attached: Mutex<Weak<()>>,
}

pub(crate) type Meters = Box<dyn Fn(InstrumentationScope) -> Meter + Send + Sync>;

/// The meter provider that this crate set up.
pub(crate) struct Sdk {
    pub(crate) provider: SdkMeterProvider,
    pub(crate) reader: SharedReader,
    pub(crate) instance_id: Mutex<Option<Uuid>>,
    #[cfg(feature = "otlp")]
    pub(crate) push: Option<crate::push::Push>,
}

impl Telemetry {
    /// Records into the application's own meter provider, with its readers and views. There is no
    /// [`exposition`](Self::exposition) then.
    pub fn with_meter_provider(provider: impl MeterProvider + Send + Sync + 'static) -> Self {
        Self::new(Some(Box::new(move |scope| provider.meter_with_scope(scope))), Arc::default(), None, "")
    }

    /// Records nothing.
    pub fn disabled() -> Self {
        Self::new(None, Arc::default(), None, "")
    }

    pub(crate) fn new(meters: Option<Meters>, views: Arc<Views>, sdk: Option<Sdk>, version: &str) -> Self {
        let telemetry = Self(Arc::new(Inner {
            meters,
            views,
            exemplars: Exemplars::default(),
            sdk,
            tracing: Tracing::ids_only(),
            attached: Mutex::default(),
        }));
        let meter = telemetry.library_meter();
        process::register(&meter, version);
        log_writer::register(&meter);
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

    fn scoped(&self, scope: InstrumentationScope) -> Meter {
        match &self.0.meters {
            Some(meters) => meters(scope),
            None => NoopMeterProvider::new().meter_with_scope(scope),
        }
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

    /// Whether anything is recorded: false if `OTEL_SDK_DISABLED` is `true`.
    pub fn is_enabled(&self) -> bool {
        self.0.meters.is_some()
    }

    /// Whether [`exposition`](Self::exposition) has metrics: false if disabled, or with the application's own provider.
    pub fn has_exposition(&self) -> bool {
        self.0.sdk.is_some()
    }

    /// Whether metrics are read by others than [`exposition`](Self::exposition): by the OTLP push or by the application's own
    /// provider.
    pub fn has_other_readers(&self) -> bool {
        match &self.0.sdk {
            #[cfg(feature = "otlp")]
            Some(sdk) => sdk.push.is_some(),
            #[cfg(not(feature = "otlp"))]
            Some(_) => false,
            None => self.is_enabled(),
        }
    }

    /// Collects all metrics and writes them as text, for the answer to a scrape.
    ///
    /// Runs all callbacks of observable instruments. From async code, call it on a thread that may block.
    pub fn exposition(&self, format: Format) -> Result<String, ExpositionError> {
        let sdk = self.0.sdk.as_ref().ok_or(ExpositionError::NoReader)?;
        let mut collected = ResourceMetrics::default();
        sdk.reader.collect(&mut collected).map_err(|error| ExpositionError::Collect(error.to_string()))?;
        Ok(encode(&collected, &self.0.exemplars, format))
    }

    /// The resource's `service.instance.id`, for one component to use as its own id. None if it is no UUID, or was taken.
    pub fn take_instance_id(&self) -> Option<Uuid> {
        lock(&self.0.sdk.as_ref()?.instance_id).take()
    }

    /// Pushes the last metrics and shuts the meter provider down, within `timeout`. Call it last.
    pub async fn shutdown(&self, timeout: Duration) {
        let Some(sdk) = &self.0.sdk else { return };
        #[cfg(feature = "otlp")]
        if let Some(push) = &sdk.push {
            push.finish(timeout).await;
        }
        let _ = sdk.provider.shutdown_with_timeout(timeout);
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("has_exposition", &self.has_exposition()).finish_non_exhaustive()
    }
}
