//! Metrics as Prometheus reads them: text 0.0.4 and OpenMetrics 1.0, by the rules with which OpenTelemetry maps its names.
//! Must not know which metrics there are: an application's own are written in the same way.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt::Write,
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};

use super::{
    catalogue::Kind,
    exemplars::{Exemplar, Exemplars, Series},
};

/// A way to write metrics down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0, which carries exemplars.
    OpenMetrics,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The names that a metric takes for itself: of its family, of its samples, and of those that it could have.
fn names(family: &str, kind: Kind) -> impl Iterator<Item = String> + Clone {
    let suffixes: &[&str] = match kind {
        Kind::Counter => &["", "_total", "_created"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
    };
    suffixes.iter().map(move |suffix| format!("{family}{suffix}"))
}

/// Everything that was collected, as one body.
pub(crate) fn encode(collected: &ResourceMetrics, exemplars: &Exemplars, format: Format) -> String {
    let mut writer = Writer { format, exemplars, out: String::with_capacity(64 << 10) };
    let target = labels(
        collected
            .resource()
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
            .collect::<Vec<_>>()
            .iter(),
    );
    writer.target(&target);
    let mut families: BTreeMap<String, (Kind, Vec<&Metric>)> = BTreeMap::new();
    for metric in collected.scope_metrics().flat_map(|scope| scope.metrics()) {
        let kind = kind(metric.data());
        let (first, metrics) =
            families.entry(family_name(metric.name(), metric.unit(), kind)).or_insert_with(|| (kind, Vec::new()));
        // Two of one name and different kinds cannot both be told.
        if *first == kind {
            metrics.push(metric);
        }
    }
    let mut taken: HashSet<String> = ["target", "target_info"].map(str::to_owned).into();
    for (family, (kind, metrics)) in &families {
        // A gauge `wait.count` beside a histogram `wait` would be taken for a part of it.
        let names = names(family, *kind);
        if names.clone().all(|name| !taken.contains(&name)) {
            taken.extend(names);
            writer.family(family, *kind, metrics);
        }
    }
    if format == Format::OpenMetrics {
        writer.out.push_str("# EOF\n");
    }
    writer.out
}

/// What a metric is for Prometheus.
fn kind(data: &AggregatedMetrics) -> Kind {
    fn of<T>(data: &MetricData<T>) -> Kind {
        match data {
            MetricData::Gauge(_) => Kind::Gauge,
            MetricData::Sum(sum) if sum.is_monotonic() => Kind::Counter,
            MetricData::Sum(_) => Kind::Gauge,
            MetricData::Histogram(_) | MetricData::ExponentialHistogram(_) => Kind::Histogram,
        }
    }
    match data {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}

/// A metric's name as Prometheus allows it, its unit behind it; a counter's without `_total`.
pub(crate) fn family_name(name: &str, unit: &str, kind: Kind) -> String {
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
fn unit_name(unit: &str, kind: Kind) -> Option<Cow<'_, str>> {
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
const BOUND: &str = "le";

/// Labels as they stand between braces, in the order of their names. Two names that become one have their values joined.
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

fn escaped(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return text.into();
    }
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }.into()
}

/// A value as both formats write it.
trait Number: Copy {
    fn text(self) -> String;
}

impl Number for u64 {
    fn text(self) -> String {
        self.to_string()
    }
}

impl Number for i64 {
    fn text(self) -> String {
        self.to_string()
    }
}

impl Number for f64 {
    fn text(self) -> String {
        match self {
            Self::INFINITY => "+Inf".to_owned(),
            Self::NEG_INFINITY => "-Inf".to_owned(),
            other => other.to_string(),
        }
    }
}

/// Points with their labels, in the order of those: a reader finds them, and they compress better. Labels that were told
/// before are left out: two samples of one series, of two meters perhaps, would make Prometheus refuse all of them.
fn sorted<P>(
    told: &mut HashSet<String>,
    points: impl Iterator<Item = P>,
    labels: impl Fn(&P) -> String,
) -> Vec<(String, P)> {
    let points = points.map(|point| (labels(&point), point));
    let mut points: Vec<(String, P)> = points.filter(|(labels, _)| told.insert(labels.clone())).collect();
    points.sort_by(|a, b| a.0.cmp(&b.0));
    points
}

struct Writer<'a> {
    format: Format,
    exemplars: &'a Exemplars,
    out: String,
}

impl Writer<'_> {
    /// What reports: the resource, as OpenTelemetry wants it told.
    fn target(&mut self, labels: &str) {
        let kind = if self.format == Format::OpenMetrics { "target info" } else { "target_info gauge" };
        let name = if self.format == Format::OpenMetrics { "target" } else { "target_info" };
        let _ = writeln!(self.out, "# TYPE {kind}\n# HELP {name} Target metadata\ntarget_info{{{labels}}} 1");
    }

    fn family(&mut self, family: &str, kind: Kind, metrics: &[&Metric]) {
        let Some(first) = metrics.first() else { return };
        let is_open = self.format == Format::OpenMetrics;
        let total = if kind == Kind::Counter { "_total" } else { "" };
        // OpenMetrics names the family, Prometheus' text the samples.
        let named = if is_open { family.to_owned() } else { format!("{family}{total}") };
        let help = escaped(first.description(), is_open);
        let _ = writeln!(self.out, "# HELP {named} {help}\n# TYPE {named} {}", kind.name());
        if let Some(unit) =
            unit_name(first.unit(), kind).filter(|unit| is_open && family.ends_with(&format!("_{unit}")))
        {
            let _ = writeln!(self.out, "# UNIT {named} {unit}");
        }
        let sample = format!("{family}{total}");
        let mut told = HashSet::new();
        for metric in metrics {
            match metric.data() {
                AggregatedMetrics::F64(data) => self.samples(&mut told, &sample, metric.name(), data),
                AggregatedMetrics::U64(data) => self.samples(&mut told, &sample, metric.name(), data),
                AggregatedMetrics::I64(data) => self.samples(&mut told, &sample, metric.name(), data),
            }
        }
    }

    fn samples<T: Number>(&mut self, told: &mut HashSet<String>, sample: &str, metric: &str, data: &MetricData<T>) {
        match data {
            MetricData::Gauge(gauge) => {
                for (labels, point) in sorted(told, gauge.data_points(), |point| labels(point.attributes())) {
                    self.sample(sample, "", &labels, &point.value().text(), None);
                }
            }
            MetricData::Sum(sum) => {
                for (labels, point) in sorted(told, sum.data_points(), |point| labels(point.attributes())) {
                    let exemplar = self.series(metric, &labels).and_then(|series| series.get(0));
                    self.sample(sample, "", &labels, &point.value().text(), exemplar);
                }
            }
            MetricData::Histogram(histogram) => {
                for (labels, point) in sorted(told, histogram.data_points(), |point| labels(point.attributes())) {
                    let buckets = point.bounds().chain([f64::INFINITY]).zip(point.bucket_counts());
                    self.histogram(sample, metric, &labels, buckets, point.count(), point.sum());
                }
            }
            // Its buckets have no bounds that both formats could name.
            MetricData::ExponentialHistogram(histogram) => {
                for (labels, point) in sorted(told, histogram.data_points(), |point| labels(point.attributes())) {
                    let count = point.count() as u64;
                    self.histogram(sample, metric, &labels, [(f64::INFINITY, count)].into_iter(), count, point.sum());
                }
            }
        }
    }

    fn histogram<T: Number>(
        &mut self,
        family: &str,
        metric: &str,
        labels: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: T,
    ) {
        let series = self.series(metric, labels);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0u64;
        for (place, (bound, here)) in buckets.enumerate() {
            below += here;
            let labels = format!("{labels}{comma}{BOUND}=\"{}\"", self.bound(bound));
            let exemplar = series.as_ref().and_then(|series| series.get(place));
            self.sample(family, "_bucket", &labels, &below.text(), exemplar);
        }
        self.sample(family, "_sum", labels, &sum.text(), None);
        self.sample(family, "_count", labels, &count.text(), None);
    }

    fn series(&self, metric: &str, labels: &str) -> Option<std::sync::Arc<Series>> {
        if self.format == Format::OpenMetrics { self.exemplars.find(metric, labels) } else { None }
    }

    /// OpenMetrics writes bounds as numbers with a point.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            Format::OpenMetrics if bound.is_finite() => format!("{bound:?}"),
            _ => bound.text(),
        }
    }

    fn sample(&mut self, family: &str, suffix: &str, labels: &str, value: &str, exemplar: Option<Exemplar>) {
        let _ = match labels {
            "" => write!(self.out, "{family}{suffix} {value}"),
            _ => write!(self.out, "{family}{suffix}{{{labels}}} {value}"),
        };
        if let Some(exemplar) = exemplar {
            let (labels, at) = exemplar.write();
            let _ = write!(self.out, " # {{{labels}}} {} {at:.3}", exemplar.value.text());
        }
        self.out.push('\n');
    }
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

    #[test]
    fn no_series_is_told_twice_whatever_an_application_measures() {
        let telemetry = crate::Telemetry::builder().build().expect("telemetry");
        for (meter, hits) in [("a", 1), ("b", 2)] {
            let (meter, label) = (telemetry.meter(meter), [KeyValue::new("le", "x")]);
            meter.u64_counter("hits").build().add(hits, &label);
            meter.f64_histogram("wait").build().record(1.0, &label);
            meter.f64_gauge("wait.count").build().record(7.0, &label);
            meter.u64_counter("wait.count").build().add(7, &label);
            meter.f64_gauge("hits.created").build().record(7.0, &label);
            meter.f64_gauge("target.info").build().record(7.0, &label);
        }
        for format in [Format::Text, Format::OpenMetrics] {
            let text = telemetry.scrape(format).expect("a scrape");
            let mut told = HashSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let series = line.split(" # ").next().and_then(|sample| sample.rsplit_once(' ')).expect("a sample").0;
                assert!(told.insert(series), "{series} comes twice");
            }
            let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            let families: Vec<&str> = families.filter_map(|line| line.split(' ').next()).collect();
            for clashing in ["wait_count", "wait_count_total", "hits_created"] {
                assert!(!families.contains(&clashing), "{clashing} beside what it would be a part of");
            }
            assert_eq!(families.iter().filter(|family| family.starts_with("target")).count(), 1);
            for series in ["hits_total{exported_le=\"x\"}", "wait_bucket{exported_le=\"x\",le=\"+Inf\"}"] {
                assert!(told.contains(series), "{series} is missing in\n{text}");
            }
        }
    }

    #[test]
    fn numbers_are_written_as_both_formats_read_them() {
        assert_eq!([0.5, 1.0, f64::INFINITY, f64::NEG_INFINITY].map(Number::text), ["0.5", "1", "+Inf", "-Inf"]);
        assert_eq!(f64::NAN.text(), "NaN");
    }
}
