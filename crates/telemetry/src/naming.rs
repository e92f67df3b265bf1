//! Converts OpenTelemetry's names, units and labels to Prometheus', by the rules of OpenTelemetry's specification.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use opentelemetry::KeyValue;

use crate::instrument::{Instrument, InstrumentKind};

impl Instrument {
    /// Prometheus name, such as `report_render_time_seconds`. Counters end in `_total`. A histogram's series append
    /// `_bucket`, `_sum` and `_count`.
    pub fn prometheus_name(&self) -> String {
        let total = if self.kind == InstrumentKind::Counter { "_total" } else { "" };
        format!("{}{total}", family_name(self.name, self.unit, self.kind))
    }
}

/// Name of a metric family: the sanitized name with its unit appended, without a counter's `_total`.
pub(crate) fn family_name(name: &str, unit: &str, kind: InstrumentKind) -> String {
    let mut family = String::new();
    for c in sanitized(name).chars() {
        // Several underscores become one.
        if c != '_' || !family.ends_with('_') {
            family.push(c);
        }
    }
    if kind == InstrumentKind::Counter {
        family.truncate(family.strip_suffix("_total").unwrap_or(&family).len());
    }
    if let Some(unit) = unit_name(unit, kind)
        && !family.ends_with(&*unit)
    {
        family.push('_');
        family.push_str(&unit);
    }
    family
}

/// A unit in words, such as `meters_per_second`. None for counted things.
pub(crate) fn unit_name(unit: &str, kind: InstrumentKind) -> Option<Cow<'_, str>> {
    match unit {
        "1" if kind == InstrumentKind::Gauge => return Some("ratio".into()),
        "" | "1" => return None,
        annotation if annotation.starts_with('{') && annotation.ends_with('}') => return None,
        _ => {}
    }
    let Some((many, each)) = unit.split_once('/') else { return Some(in_words(unit)) };
    let each = match each {
        "s" => "second".into(),
        "m" => "minute".into(),
        "h" => "hour".into(),
        "d" => "day".into(),
        "w" => "week".into(),
        "mo" => "month".into(),
        "y" => "year".into(),
        other => sanitized(other),
    };
    let many = if many.starts_with('{') { String::new() } else { format!("{}_", in_words(many)) };
    Some(format!("{many}per_{each}").into())
}

fn in_words(unit: &str) -> Cow<'_, str> {
    let words = match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tebibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        other => return sanitized(other),
    };
    words.into()
}

/// Replaces characters that Prometheus does not allow by underscores.
fn sanitized(name: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return name.into();
    }
    let lead = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let rest = name.chars().map(|c| if fits(c) { c } else { '_' });
    lead.chars().chain(rest).collect::<String>().into()
}

/// Label of a histogram bucket's upper bound. Other labels of this name are renamed.
pub(crate) const BOUND: &str = "le";

/// Labels as written between braces, sorted by name. Values of names that become equal are joined by a semicolon.
pub(crate) fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut sorted: BTreeMap<Cow<'_, str>, String> = BTreeMap::new();
    for attribute in attributes {
        let value = attribute.value.as_str();
        let name = match sanitized(attribute.key.as_str()) {
            name if name == BOUND => "exported_le".into(),
            name => name,
        };
        let joined = sorted.entry(name).or_default();
        if !joined.is_empty() {
            joined.push(';');
        }
        joined.push_str(&value);
    }
    let mut text = String::new();
    for (name, value) in &sorted {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{}\"", escaped(value, true));
    }
    text
}

/// Escapes a label value or, without `quotes`, a description in Prometheus' text format.
pub(crate) fn escaped(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return text.into();
    }
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_converted() {
        for (name, unit, kind, expected) in [
            ("http.server.request.duration", "s", InstrumentKind::Histogram, "http_server_request_duration_seconds"),
            ("process.cpu", "s", InstrumentKind::Counter, "process_cpu_seconds"),
            ("performance.processed_items", "{item}", InstrumentKind::Counter, "performance_processed_items"),
            ("cache.total", "", InstrumentKind::Counter, "cache"),
            ("cache.total", "", InstrumentKind::Gauge, "cache_total"),
            ("cache.hit", "1", InstrumentKind::Gauge, "cache_hit_ratio"),
            ("cache.hits", "1", InstrumentKind::Counter, "cache_hits"),
            ("load_seconds", "s", InstrumentKind::Histogram, "load_seconds"),
            ("5xx", "", InstrumentKind::Counter, "_5xx"),
            ("a..b__c", "", InstrumentKind::Gauge, "a_b_c"),
            ("speed", "m/s", InstrumentKind::Gauge, "speed_meters_per_second"),
            ("load", "{request}/s", InstrumentKind::Gauge, "load_per_second"),
            ("disk.size", "GBy", InstrumentKind::Gauge, "disk_size_gigabytes"),
            ("odd", "foo", InstrumentKind::Gauge, "odd_foo"),
        ] {
            assert_eq!(family_name(name, unit, kind), expected);
        }
    }

    #[test]
    fn labels_are_sorted_joined_and_escaped() {
        let attributes = [KeyValue::new("b", "x\"\\\n"), KeyValue::new("a.b", "1"), KeyValue::new("a_b", "2")];
        assert_eq!(labels(attributes.iter()), "a_b=\"1;2\",b=\"x\\\"\\\\\\n\"");
        assert_eq!(labels([].iter()), "");
        assert_eq!(labels([KeyValue::new("le", "5")].iter()), "exported_le=\"5\"");
    }
}
