//! The table of metrics in the docs.

use std::fmt::Write;

use async_endpoints::telemetry::{CATALOGUE, Instrument, Kind, Scope};

const BEGIN: &str = "<!-- generated: metrics -->\n";
const END: &str = "<!-- end of generated -->";

/// The page with the table between its markers; none if it lacks them.
pub(crate) fn insert(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", table()))
}

fn table() -> String {
    let mut table = "| Prometheus name | kind | labels | add up with | meaning |\n|---|---|---|---|---|\n".to_owned();
    for instrument in CATALOGUE {
        // Writing into a string cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            instrument.prometheus_name(),
            kind(instrument.kind),
            labels(instrument),
            scope(instrument.scope),
            instrument.help
        );
    }
    table
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// Every process reports the same of the fleet: a sum would count it once for each of them.
const fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "`sum`",
        Scope::Fleet => "`max`",
        Scope::Single => "each alone",
    }
}

fn labels(instrument: &Instrument) -> String {
    let labels: Vec<String> = instrument.labels.iter().map(|label| format!("`{}`", label.replace('.', "_"))).collect();
    labels.join(", ")
}
