//! Declarations of instruments.

use opentelemetry::metrics::{AsyncInstrument, Meter};

/// Instrumentation scope of the attached library and of the process metrics.
pub(crate) const SCOPE: &str = "async_endpoints";

/// Kind of an instrument.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum InstrumentKind {
    /// A sum that only grows. It starts at zero with the process.
    Counter,
    /// A current value.
    Gauge,
    /// Counts of measurements by bucket.
    Histogram,
}

impl InstrumentKind {
    /// The kind's name in Prometheus, such as `counter`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How the values of several processes combine.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Each value counts one process: sum them.
    Sum,
    /// Every process reports the same value of the whole fleet: take the maximum.
    Max,
    /// Each value describes one process: do not combine them.
    Never,
}

/// Declaration of a metric. Names follow OpenTelemetry's rules; [`prometheus_name`](Self::prometheus_name) derives
/// Prometheus' name.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Instrument {
    /// OpenTelemetry name, such as `report.render_time`.
    pub name: &'static str,
    /// Kind.
    pub kind: InstrumentKind,
    /// Unit: `s`, `By`, `1` for a ratio, or the counted things in braces, such as `{report}`.
    pub unit: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// How the values of several processes combine.
    pub combine: Combine,
    /// Upper bounds of the histogram's buckets, ascending. Empty for other kinds.
    pub bounds: &'static [f64],
    /// Description.
    pub help: &'static str,
    /// Maximum number of label sets; further ones share one series.
    pub(crate) max_series: usize,
}

/// OpenTelemetry's default limit of label sets per instrument.
const MAX_SERIES: usize = 2_000;

impl Instrument {
    const fn new(
        kind: InstrumentKind,
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, labels, combine: Combine::Sum, bounds: &[], help, max_series: MAX_SERIES }
    }

    /// Declares a counter.
    pub const fn counter(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(InstrumentKind::Counter, name, unit, labels, help)
    }

    /// Declares a gauge.
    pub const fn gauge(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(InstrumentKind::Gauge, name, unit, labels, help)
    }

    /// Declares a histogram with ascending upper bucket bounds.
    pub const fn histogram(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self { bounds, ..Self::new(InstrumentKind::Histogram, name, unit, labels, help) }
    }

    /// Sets how the values of several processes combine. Defaults to [`Combine::Sum`].
    #[must_use]
    pub const fn combine(self, combine: Combine) -> Self {
        Self { combine, ..self }
    }

    /// Sets the maximum number of label sets. Defaults to 2 000. The memory for them is allocated at once.
    #[must_use]
    pub const fn max_series(self, max_series: usize) -> Self {
        Self { max_series, ..self }
    }

    /// Registers a gauge whose value `read` observes at each collection.
    pub(crate) fn observe(&self, meter: &Meter, read: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static) {
        let gauge = meter.f64_observable_gauge(self.name).with_unit(self.unit).with_description(self.help);
        let _registered = gauge.with_callback(read).build();
    }
}
