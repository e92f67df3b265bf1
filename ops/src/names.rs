//! Prometheus names of the catalogue's metrics.

use async_endpoints::telemetry::{CATALOGUE, Instrument};

/// Prometheus name of a metric by its name in the catalogue.
///
/// # Panics
///
/// If the catalogue lacks the metric.
pub(crate) fn name(of: &str) -> String {
    let found = CATALOGUE.iter().find(|instrument| instrument.name == of);
    found.map(Instrument::prometheus_name).unwrap_or_else(|| panic!("no metric is named {of:?}"))
}

/// Replaces each `@catalogue name@` by the Prometheus name.
pub(crate) fn fill(template: &str) -> String {
    let parts = template.split('@').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { name(part) } else { part.to_owned() }).collect()
}
