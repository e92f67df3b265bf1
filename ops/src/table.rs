//! The table of all metrics in the docs.

use std::{fmt::Write, io};

use async_endpoints::telemetry::{CATALOGUE, Scope};

use crate::names::kind;

const BEGIN: &str = "<!-- generated: metrics -->\n";
const END: &str = "<!-- end of generated -->";

/// The page with the table between its two marks.
pub(crate) fn in_page(page: &str) -> io::Result<String> {
    let unmarked = || io::Error::other("docs/metrics.md has lost the marks of its generated part");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(unmarked)?;
    let (_, after) = rest.split_once(END).ok_or_else(unmarked)?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table()))
}

fn table() -> String {
    let mut table = "| metric | kind | labels | of | says |\n|---|---|---|---|---|\n".to_owned();
    for instrument in CATALOGUE {
        let labels = instrument.labels.join(", ").replace('.', "_");
        let of = match instrument.scope {
            Scope::Process => "process",
            Scope::Fleet => "fleet",
        };
        let (name, kind, help) = (instrument.prometheus_name(), kind(instrument.kind), instrument.help);
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {of} | {help} |");
    }
    table
}
