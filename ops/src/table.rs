//! The table of metrics in the docs.

use std::fmt::Write;

use async_endpoints::telemetry::{CATALOGUE, Combine, Instrument};

use crate::configuration::between_markers;

/// The page with the table between its markers. None if a marker is missing.
pub(crate) fn insert(page: &str) -> Option<String> {
    between_markers(page, "metrics", &table())
}

fn table() -> String {
    let mut table = "| Prometheus name | kind | labels | combine with | meaning |\n|---|---|---|---|---|\n".to_owned();
    for instrument in CATALOGUE {
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            instrument.prometheus_name(),
            instrument.kind.name(),
            labels(instrument),
            combine(instrument.combine),
            instrument.help
        );
    }
    table
}

const fn combine(combine: Combine) -> &'static str {
    match combine {
        Combine::Sum => "`sum`",
        Combine::Max => "`max`",
        Combine::Never => "nothing",
    }
}

fn labels(instrument: &Instrument) -> String {
    let labels: Vec<String> = instrument.labels.iter().map(|label| format!("`{}`", label.replace('.', "_"))).collect();
    labels.join(", ")
}
