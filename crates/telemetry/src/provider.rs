//! `Telemetry`: the entry point of an application that has telemetry.

use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
};

use opentelemetry::{InstrumentationScope, metrics::Meter};
use uuid::Uuid;

use crate::{
    exemplars::Exemplars,
    instrument::{Instrument, SCOPE},
    sdk::Sdk,
    sync::lock,
    trace::Tracing,
};

/// Destination of traces, metrics and logs: exporters, a scrape, or the application's own providers.
///
/// Cheap to clone; all clones share the providers. See the [crate documentation](crate) for an example.
#[derive(Clone)]
pub struct Telemetry(pub(crate) Arc<Inner>);

/// What [`TelemetryBuilder`](crate::TelemetryBuilder) set up.
#[derive(Default)]
pub(crate) struct Inner {
    /// What needs OpenTelemetry's SDK.
    pub(crate) sdk: Sdk,
    pub(crate) exemplars: Exemplars,
    pub(crate) tracing: Tracing,
    pub(crate) propagates: bool,
    /// Alive while a library is attached.
    pub(crate) attached: Mutex<Weak<()>>,
}

impl Telemetry {
    /// Records nothing.
    pub fn disabled() -> Self {
        Self::new(Inner { propagates: true, ..Inner::default() }, "")
    }

    pub(crate) fn new(inner: Inner, version: &str) -> Self {
        let telemetry = Self(Arc::new(inner));
        telemetry.0.sdk.register(&telemetry.library_meter(), version);
        telemetry
    }

    /// A meter for the application's own metrics. They go where all metrics go.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.0.sdk.meter(InstrumentationScope::builder(name).build())
    }

    /// Starts spans, which go where all spans go.
    pub fn tracing(&self) -> &Tracing {
        &self.0.tracing
    }

    pub(crate) fn library_meter(&self) -> Meter {
        self.0.sdk.meter(InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build())
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
        self.0.sdk.declare(catalogue);
    }

    pub(crate) fn bounds<'a>(&'a self, instrument: &Instrument) -> &'a [f64] {
        self.0.sdk.bounds(instrument)
    }

    pub(crate) fn exemplars(&self) -> &Exemplars {
        &self.0.exemplars
    }

    /// Whether metrics are recorded: false if `OTEL_SDK_DISABLED` is `true`.
    pub fn is_enabled(&self) -> bool {
        self.0.sdk.is_enabled()
    }

    /// Whether [`exposition`](Self::exposition) has metrics: false if disabled, or with the application's own provider.
    pub fn has_exposition(&self) -> bool {
        self.0.sdk.has_exposition()
    }

    /// Whether metrics are read by others than [`exposition`](Self::exposition): by an exporter or by the application's own
    /// provider.
    pub fn has_other_readers(&self) -> bool {
        self.0.sdk.has_other_readers()
    }

    /// The resource's `service.instance.id`, for one component to use as its own id. None if it is no UUID, or was taken.
    pub fn take_instance_id(&self) -> Option<Uuid> {
        self.0.sdk.take_instance_id()
    }

    /// The resource's `service.name`; none if it is not set.
    pub fn service_name(&self) -> Option<String> {
        self.0.sdk.resource("service.name").filter(|name| !name.is_empty())
    }

    /// The resource's `service.version`; none if it is not set.
    pub fn service_version(&self) -> Option<String> {
        self.0.sdk.resource("service.version").filter(|version| !version.is_empty())
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("has_exposition", &self.has_exposition()).finish_non_exhaustive()
    }
}
