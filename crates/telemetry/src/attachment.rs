//! Instruments of an attached library.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, BoundHistogram, Counter, Histogram, Meter},
};

use crate::{
    exemplars::{ExemplarLabels, Exemplars, SeriesExemplars},
    instrument::Instrument,
    provider::Telemetry,
};

/// Creates the instruments of a library; made by [`Telemetry::attach`]. Dropping it allows the next attachment.
pub struct Attachment {
    telemetry: Telemetry,
    meter: Meter,
    _attached: Arc<()>,
}

impl Telemetry {
    /// Attaches a library and its instruments. None while another attachment is alive: two libraries that report the same
    /// gauges would overwrite each other's values.
    pub fn attach(&self, catalogue: &'static [Instrument]) -> Option<Attachment> {
        let attached = self.mark_attached()?;
        self.declare(catalogue);
        Some(Attachment { telemetry: self.clone(), meter: self.library_meter(), _attached: attached })
    }
}

impl Attachment {
    /// Whether measurements are recorded. If not, the instruments ignore them.
    pub fn measures(&self) -> bool {
        self.telemetry.is_enabled()
    }

    /// Creates a counter.
    pub fn counter(&self, instrument: &Instrument) -> Counter<u64> {
        let counter = self.meter.u64_counter(instrument.name).with_unit(instrument.unit);
        counter.with_description(instrument.help).build()
    }

    /// Creates a histogram.
    pub fn histogram(&self, instrument: &Instrument) -> Histogram<f64> {
        let histogram = self.meter.f64_histogram(instrument.name).with_unit(instrument.unit);
        let bounds = self.telemetry.bounds(instrument).to_vec();
        histogram.with_description(instrument.help).with_boundaries(bounds).build()
    }

    /// Creates the series of a histogram of seconds with these labels, and its exemplars.
    pub fn timer(&self, instrument: &Instrument, labels: &[KeyValue]) -> Timer {
        let exemplars = self.exemplars().series(instrument.name, labels, self.telemetry.bounds(instrument));
        Timer { histogram: self.histogram(instrument).bind(labels), exemplars }
    }

    /// Registers a gauge. `read` observes its values at each collection, on the thread that collects. It must not block.
    pub fn gauge(&self, instrument: &Instrument, read: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static) {
        instrument.observe(&self.meter, read);
    }

    /// The exemplars of all series.
    pub fn exemplars(&self) -> &Exemplars {
        self.telemetry.exemplars()
    }
}

/// One series of a histogram of seconds, with an exemplar for each bucket.
pub struct Timer {
    histogram: BoundHistogram<f64>,
    exemplars: Arc<SeriesExemplars>,
}

impl Timer {
    /// Records a duration. `labels` is called if this measurement becomes an exemplar.
    pub fn record(&self, duration: Duration, now: Instant, labels: impl FnOnce() -> ExemplarLabels) {
        let seconds = duration.as_secs_f64();
        self.histogram.record(seconds);
        self.exemplars.offer(seconds, now, labels);
    }
}
