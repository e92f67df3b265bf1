//! Names of metrics as Prometheus has them, taken from the catalogue.

use async_endpoints::telemetry::{CATALOGUE, Instrument, Kind};

/// A metric by its OpenTelemetry name. One that is not in the catalogue is a mistake of whoever asks: nothing is generated then.
pub(crate) fn metric(name: &str) -> String {
    let found = CATALOGUE.iter().find(|instrument| instrument.name == name);
    found.map(Instrument::prometheus_name).unwrap_or_else(|| panic!("{name} is in no catalogue"))
}

/// Whether Prometheus can have such a name from us.
#[cfg(test)]
pub(crate) fn is_known(name: &str) -> bool {
    CATALOGUE.iter().any(|instrument| {
        let own = instrument.prometheus_name();
        let parts: &[&str] = if instrument.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        parts.iter().any(|part| name == format!("{own}{part}"))
    })
}

/// Kinds as the table names them.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}
