//! Views of the library's instruments: bucket bounds and series limits.

use std::sync::Mutex;

use opentelemetry_sdk::metrics::{Aggregation, Instrument as SdkInstrument, Stream};

use crate::{
    instrument::{Instrument, InstrumentKind},
    sync::lock,
};

/// Instrumentation scope of the attached library and of the process metrics.
pub(crate) const SCOPE: &str = "async_endpoints";

/// The attached catalogue, and bounds that replace the declared ones.
#[derive(Default)]
pub(crate) struct Views {
    pub(crate) catalogue: Mutex<&'static [Instrument]>,
    /// A prefix of instrument names, and the bounds of those instruments. The last match counts.
    pub(crate) bounds: Vec<(String, Vec<f64>)>,
}

impl Views {
    pub(crate) fn bounds<'a>(&'a self, instrument: &Instrument) -> &'a [f64] {
        if instrument.kind != InstrumentKind::Histogram {
            return &[];
        }
        let replaced = self.bounds.iter().rev().find(|(prefix, _)| instrument.name.starts_with(prefix));
        replaced.map_or(instrument.bounds, |(_, bounds)| bounds)
    }

    /// The SDK calls this when an instrument is created.
    pub(crate) fn view(&self, instrument: &SdkInstrument) -> Option<Stream> {
        if instrument.scope().name() != SCOPE {
            return None;
        }
        let declared = lock(&self.catalogue).iter().find(|declared| declared.name == instrument.name())?;
        let stream = Stream::builder().with_cardinality_limit(declared.max_series);
        let stream = match declared.kind {
            // The minimum and maximum since the start are useless, and a series at zero has neither.
            InstrumentKind::Histogram => stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
                boundaries: self.bounds(declared).to_vec(),
                record_min_max: false,
            }),
            InstrumentKind::Counter | InstrumentKind::Gauge => stream,
        };
        stream.build().ok()
    }
}
