//! Names of metrics as Prometheus knows them, looked up in the catalogue.

use async_endpoints::telemetry::{CATALOGUE, Instrument};

/// The Prometheus name of a metric, by its name in the catalogue.
///
/// # Panics
///
/// If there is no such metric: nothing may be generated then.
pub(crate) fn name(of: &str) -> String {
    let found = CATALOGUE.iter().find(|instrument| instrument.name == of);
    found.map(Instrument::prometheus_name).unwrap_or_else(|| panic!("no metric is named {of:?}"))
}

/// Replaces each `@name in the catalogue@` by the metric's Prometheus name.
pub(crate) fn fill(template: &str) -> String {
    let parts = template.split('@').enumerate();
    parts.map(|(place, part)| if place % 2 == 1 { name(part) } else { part.to_owned() }).collect()
}
