//! Views of the library's instruments: bucket bounds and series limits.

use std::{cell::Cell, sync::Mutex};

use opentelemetry_sdk::metrics::{Aggregation, Instrument as SdkInstrument, InstrumentKind as SdkKind, Stream};

use crate::{
    instrument::{Instrument, InstrumentKind, SCOPE},
    sync::lock,
};

/// The attached catalogue, and bounds that replace the declared ones.
#[derive(Default)]
pub(crate) struct Views {
    pub(crate) catalogue: Mutex<&'static [Instrument]>,
    /// A prefix of instrument names, and the bounds of those instruments. The last match counts.
    pub(crate) bounds: Vec<(String, Vec<f64>)>,
    /// The number of readers, if the last one has base-2 exponential histograms.
    pub(crate) exponential: Option<usize>,
}

/// OpenTelemetry's defaults.
const EXPONENTIAL: Aggregation =
    Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };

thread_local! {
    /// Number of calls of the view on this thread.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

impl Views {
    pub(crate) fn bounds<'a>(&'a self, instrument: &Instrument) -> &'a [f64] {
        if instrument.kind != InstrumentKind::Histogram {
            return &[];
        }
        let replaced = self.bounds.iter().rev().find(|(prefix, _)| instrument.name.starts_with(prefix));
        replaced.map_or(instrument.bounds, |(_, bounds)| bounds)
    }

    /// The SDK calls this when an instrument is created: for each reader in turn, on one thread. It does not say for which
    /// reader.
    pub(crate) fn view(&self, instrument: &SdkInstrument) -> Option<Stream> {
        let is_histogram = instrument.kind() == SdkKind::Histogram;
        let is_exponential = self.exponential.is_some_and(|readers| {
            let call = CALLS.replace((CALLS.get() + 1) % readers);
            is_histogram && call + 1 == readers
        });
        let declared = self.declared(instrument);
        if declared.is_none() && !is_exponential {
            return None;
        }
        let stream = Stream::builder();
        let stream = match declared {
            Some(declared) => stream.with_cardinality_limit(declared.max_series),
            None => stream,
        };
        let stream = match declared {
            _ if is_exponential => stream.with_aggregation(EXPONENTIAL),
            // The minimum and maximum since the start are useless, and a series at zero has neither.
            Some(declared) if declared.kind == InstrumentKind::Histogram => {
                stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
                    boundaries: self.bounds(declared).to_vec(),
                    record_min_max: false,
                })
            }
            _ => stream,
        };
        stream.build().ok()
    }

    fn declared(&self, instrument: &SdkInstrument) -> Option<&'static Instrument> {
        let is_ours = instrument.scope().name() == SCOPE;
        let catalogue: &'static [Instrument] = if is_ours { *lock(&self.catalogue) } else { &[] };
        catalogue.iter().find(|declared| declared.name == instrument.name())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::{
        SdkMeterProvider,
        data::{AggregatedMetrics, MetricData, ResourceMetrics},
        reader::MetricReader,
    };

    use super::*;
    use crate::reader::SharedReader;

    fn exponential_histograms(reader: &SharedReader) -> Vec<bool> {
        let mut collected = ResourceMetrics::default();
        reader.collect(&mut collected).expect("metrics");
        let metrics = collected.scope_metrics().flat_map(|scope| scope.metrics());
        let is_exponential = metrics.filter_map(|metric| match metric.data() {
            AggregatedMetrics::F64(MetricData::ExponentialHistogram(_)) => Some(true),
            AggregatedMetrics::F64(MetricData::Histogram(_)) => Some(false),
            _ => None,
        });
        is_exponential.collect()
    }

    #[test]
    fn last_reader_alone_has_exponential_histograms() {
        const DECLARED: &[Instrument] = &[Instrument::histogram("declared", "s", &[], &[1.0], "Declared.")];
        let views = Arc::new(Views { exponential: Some(3), ..Views::default() });
        *lock(&views.catalogue) = DECLARED;
        let readers: [SharedReader; 3] = Default::default();
        let builder =
            readers.iter().fold(SdkMeterProvider::builder(), |builder, reader| builder.with_reader(reader.clone()));
        let provider = builder.with_view(move |instrument: &SdkInstrument| views.view(instrument)).build();
        for scope in [SCOPE, "application"] {
            let meter = provider.meter(scope);
            meter.u64_counter("counted").build().add(1, &[]);
            let _observed =
                meter.f64_observable_gauge("observed").with_callback(|gauge| gauge.observe(1.0, &[])).build();
            meter.f64_histogram("declared").build().record(1.0, &[]);
            meter.f64_histogram("other").build().record(1.0, &[]);
        }
        assert_eq!(readers.each_ref().map(exponential_histograms), [vec![false; 4], vec![false; 4], vec![true; 4]]);
    }
}
