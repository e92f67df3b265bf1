//! OpenTelemetry's names, units and labels as Prometheus has them, by the rules that OpenTelemetry gives for that.
//! Must not know which metrics there are: an application's own are named in the same way.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use opentelemetry::KeyValue;

use super::catalogue::Kind;

/// A metric's name as Prometheus allows it, its unit behind it; a counter's without `_total`.
pub(super) fn family_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut family = String::new();
    for c in sanitized(name).chars() {
        // OpenTelemetry wants one for several.
        if c != '_' || !family.ends_with('_') {
            family.push(c);
        }
    }
    if kind == Kind::Counter {
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

/// A unit in words, as `meters_per_second`; none for what is only counted.
pub(super) fn unit_name(unit: &str, kind: Kind) -> Option<Cow<'_, str>> {
    match unit {
        "1" if kind == Kind::Gauge => return Some("ratio".into()),
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

/// The name with an underscore for whatever Prometheus does not allow.
fn sanitized(name: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return name.into();
    }
    let lead = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let rest = name.chars().map(|c| if fits(c) { c } else { '_' });
    lead.chars().chain(rest).collect::<String>().into()
}

/// The bound of a histogram's bucket, which no other label may be called.
pub(super) const BOUND: &str = "le";

/// Labels as they stand between braces, in the order of their names. Two names that become one have their values joined.
pub(super) fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
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

pub(super) fn escaped(text: &str, quotes: bool) -> Cow<'_, str> {
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
    fn names_become_what_prometheus_takes() {
        for (name, unit, kind, told) in [
            ("http.server.request.duration", "s", Kind::Histogram, "http_server_request_duration_seconds"),
            ("process.cpu", "s", Kind::Counter, "process_cpu_seconds"),
            ("performance.processed_items", "{item}", Kind::Counter, "performance_processed_items"),
            ("cache.total", "", Kind::Counter, "cache"),
            ("cache.total", "", Kind::Gauge, "cache_total"),
            ("cache.hit", "1", Kind::Gauge, "cache_hit_ratio"),
            ("cache.hits", "1", Kind::Counter, "cache_hits"),
            ("load_seconds", "s", Kind::Histogram, "load_seconds"),
            ("5xx", "", Kind::Counter, "_5xx"),
            ("a..b__c", "", Kind::Gauge, "a_b_c"),
            ("speed", "m/s", Kind::Gauge, "speed_meters_per_second"),
            ("load", "{request}/s", Kind::Gauge, "load_per_second"),
            ("disk.size", "GBy", Kind::Gauge, "disk_size_gigabytes"),
            ("odd", "foo", Kind::Gauge, "odd_foo"),
        ] {
            assert_eq!(family_name(name, unit, kind), told);
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
