//! The tables of `docs/configuration.md`, read from the doc comments of the settings.

use std::fmt::Write;

const OPTIONS: &str = include_str!("../../crates/endpoints/src/options.rs");
const DASHBOARD: &str = include_str!("../../crates/endpoints/src/options/dashboard.rs");
const ALERTS: &str = include_str!("../../crates/endpoints/src/alerts/env.rs");
const LOGS: &str = include_str!("../../crates/telemetry/src/logs/settings.rs");
const TELEMETRY: &str = include_str!("../../crates/telemetry/src/builder.rs");
const DEMO: &str = include_str!("../../examples/demo/src/settings.rs");

/// The page with its tables between their markers. None if a marker or a table is missing.
pub(crate) fn insert(page: &str) -> Option<String> {
    let dashboard = fields(DASHBOARD, "pub struct DashboardOptions {");
    let options: Vec<Setting<'_>> = fields(OPTIONS, "pub struct Options {").chain(dashboard).collect();
    let demo: Vec<Setting<'_>> = fields(DEMO, "pub(crate) struct Settings {").collect();
    let tables = [
        ("options", variables("AE_", &options)),
        ("options in code", without_variable(&options)),
        ("alerts", table_of(ALERTS)?.replace("| `ALERT_", "| `AE_ALERT_")),
        ("logs", table_of(LOGS)?),
        ("telemetry", table_of(TELEMETRY)?),
        ("demo", variables("", &demo)),
    ];
    tables.iter().try_fold(page.to_owned(), |page, (name, table)| between_markers(&page, name, table))
}

/// Replaces the text between `<!-- generated: name -->` and the next `<!-- end of generated -->`.
pub(crate) fn between_markers(page: &str, name: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("<!-- generated: {name} -->\n"))?;
    let (_, after) = rest.split_once("<!-- end of generated -->")?;
    Some(format!("{before}<!-- generated: {name} -->\n{text}<!-- end of generated -->{after}"))
}

/// A field with its doc comment: the variable, the meaning and the default.
struct Setting<'a> {
    field: &'a str,
    variable: Option<String>,
    meaning: String,
    default: String,
}

/// The fields of a struct whose doc comments read "`VARIABLE`: meaning. Further text. Defaults to value."
fn fields<'a>(source: &'a str, start: &str) -> impl Iterator<Item = Setting<'a>> {
    let body = source.split_once(start).and_then(|(_, rest)| rest.split_once("\n}")).map_or("", |(body, _)| body);
    let mut doc = String::new();
    body.lines().map(str::trim).filter_map(move |line| {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
            return None;
        }
        let (field, kind) = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").split_once(": ")?;
        let doc = std::mem::take(&mut doc);
        // Such a field has settings of its own.
        (!kind.ends_with("Options,")).then(|| setting(field, doc.trim()))
    })
}

fn setting<'a>(field: &'a str, doc: &str) -> Setting<'a> {
    let doc = without_links(doc);
    let named = doc.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
    let (variable, text) = named.map_or((None, doc.as_str()), |(variable, text)| (Some(variable.to_owned()), text));
    let (text, default) = text.split_once("Defaults to ").unwrap_or((text, "none. "));
    let meaning = text.split(". ").next().unwrap_or(text).trim_end_matches(['.', ' ']);
    let default = default.split(". ").next().unwrap_or(default).trim_end_matches(['.', ' ']);
    Setting { field, variable, meaning: meaning.to_owned(), default: default.to_owned() }
}

fn variables(prefix: &str, settings: &[Setting<'_>]) -> String {
    let mut table = "| variable | default | meaning |\n|---|---|---|\n".to_owned();
    for Setting { variable, meaning, default, .. } in settings {
        if let Some(variable) = variable {
            let _ = writeln!(table, "| `{prefix}{variable}` | {default} | {meaning} |");
        }
    }
    table
}

fn without_variable(settings: &[Setting<'_>]) -> String {
    let mut table = "| field | default | meaning |\n|---|---|---|\n".to_owned();
    for Setting { field, meaning, default, .. } in settings.iter().filter(|setting| setting.variable.is_none()) {
        let _ = writeln!(table, "| `{field}` | {default} | {meaning} |");
    }
    table
}

/// The first table of variables in the doc comments of a file.
fn table_of(source: &str) -> Option<String> {
    let is_row = |line: &&str| line.starts_with("/// |");
    let lines = source.lines().map(str::trim).skip_while(|line| !line.starts_with("/// | variable |"));
    let rows: Vec<String> = lines.take_while(is_row).map(|line| without_links(&line[4..])).collect();
    (!rows.is_empty()).then(|| rows.join("\n") + "\n")
}

/// Replaces links of rustdoc by their text: "[`serve`](crate::AsyncEndpoints::serve)" and "[`Logs`]" by "`serve`" and "`Logs`".
fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
        let target = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let _ = write!(plain, "`{name}`{}", target.map_or(rest, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_is_read_from_its_doc_comment() {
        let source = "struct S {\n    /// `LEASE_SECONDS`: time without a\n    /// renewal. See [`serve`](crate::serve). Defaults to 8 s.\n    \
                      #[serde(rename = \"lease_seconds\")]\n    pub lease: Duration,\n    /// Shows [`Logs`].\n    pub logs: bool,\n}";
        let read: Vec<Setting<'_>> = fields(source, "struct S {").collect();
        let [lease, logs] = &read[..] else { panic!("{} fields", read.len()) };
        assert_eq!((lease.field, lease.variable.as_deref()), ("lease", Some("LEASE_SECONDS")));
        assert_eq!((lease.meaning.as_str(), lease.default.as_str()), ("time without a renewal", "8 s"));
        assert_eq!(
            (logs.variable.as_deref(), logs.meaning.as_str(), logs.default.as_str()),
            (None, "Shows `Logs`", "none")
        );
    }

    #[test]
    fn each_option_in_code_has_a_default() {
        let options = fields(OPTIONS, "pub struct Options {").filter(|setting| setting.variable.is_none());
        let without: Vec<&str> =
            options.filter(|setting| setting.default == "none").map(|setting| setting.field).collect();
        assert!(without.is_empty(), "write \"Defaults to …\" in the doc comment of {without:?}");
    }

    #[test]
    fn missing_marker_is_noticed() {
        assert_eq!(between_markers("no markers", "alerts", ""), None);
        let page = "a\n<!-- generated: x -->\nold\n<!-- end of generated -->\nb";
        let expected = "a\n<!-- generated: x -->\nnew\n<!-- end of generated -->\nb";
        assert_eq!(between_markers(page, "x", "new\n").as_deref(), Some(expected));
    }
}
