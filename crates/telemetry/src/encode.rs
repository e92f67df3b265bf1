//! Writes collected metrics as Prometheus text 0.0.4 or OpenMetrics 1.0.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::{Display, Write},
    sync::Arc,
};

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};

use crate::{
    exemplars::{Exemplar, Exemplars, SeriesExemplars},
    instrument::InstrumentKind as Kind,
    naming::{BOUND, escaped, family_name, labels, unit_name},
};

/// Text format of an exposition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4. Has no exemplars.
    Text,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

impl Format {
    /// Value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Names that a metric family reserves: its own, and those of the samples that it may have.
fn names(family: &str, kind: Kind) -> impl Iterator<Item = String> + Clone {
    let suffixes: &[&str] = match kind {
        Kind::Counter => &["", "_total", "_created"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
    };
    suffixes.iter().map(move |suffix| format!("{family}{suffix}"))
}

/// Writes all collected metrics. With `scope_labels`, each series has its instrumentation scope in labels.
pub(crate) fn encode(collected: &ResourceMetrics, exemplars: &Exemplars, format: Format, scope_labels: bool) -> String {
    let mut writer = Writer { format, exemplars, out: String::with_capacity(64 << 10) };
    let resource = collected.resource().iter();
    let resource: Vec<KeyValue> = resource.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    writer.target(&labels(resource.iter()));
    let mut families: BTreeMap<String, (Kind, Vec<Scoped<'_>>)> = BTreeMap::new();
    let scoped = collected.scope_metrics().flat_map(|scope| {
        let labels = if scope_labels { scope_text(scope.scope()) } else { String::new() };
        scope.metrics().map(move |metric| Scoped { scope: labels.clone(), metric })
    });
    for Scoped { scope, metric } in scoped {
        let kind = kind(metric.data());
        let (first, metrics) =
            families.entry(family_name(metric.name(), metric.unit(), kind)).or_insert_with(|| (kind, Vec::new()));
        // Of two kinds with one name, the first is written.
        if *first == kind {
            metrics.push(Scoped { scope, metric });
        }
    }
    let mut taken: HashSet<String> = ["target", "target_info"].map(str::to_owned).into();
    for (family, (kind, metrics)) in &families {
        // A gauge `wait.count` beside a histogram `wait` would be read as a part of the histogram.
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

/// A metric, and the labels of its instrumentation scope as written between braces.
struct Scoped<'a> {
    scope: String,
    metric: &'a Metric,
}

/// The labels of an instrumentation scope, as OpenTelemetry specifies them for Prometheus.
fn scope_text(scope: &InstrumentationScope) -> String {
    let of = |name: &str, value: &str| KeyValue::new(format!("otel_scope_{name}"), value.to_owned());
    let version = scope.version().map(|version| of("version", version));
    let schema = scope.schema_url().map(|url| of("schema_url", url));
    let attributes = scope.attributes().map(|pair| of(pair.key.as_str(), &pair.value.as_str()));
    let all: Vec<KeyValue> =
        [of("name", scope.name())].into_iter().chain(version).chain(schema).chain(attributes).collect();
    labels(all.iter())
}

impl Scoped<'_> {
    /// All labels of a point.
    fn labels<'a>(&self, attributes: impl Iterator<Item = &'a KeyValue>) -> String {
        joined(&labels(attributes), &self.scope)
    }
}

/// Labels as written between braces, after other ones.
fn joined(labels: &str, more: &str) -> String {
    let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
    format!("{labels}{comma}{more}")
}

/// A metric's kind in Prometheus.
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

/// A number as both formats write it.
fn number_text(number: impl Display) -> String {
    match number.to_string() {
        infinite if infinite == "inf" => "+Inf".to_owned(),
        infinite if infinite == "-inf" => "-Inf".to_owned(),
        finite => finite,
    }
}

/// Points with their labels, sorted by labels so that the text compresses better. Points with labels in `written` are
/// skipped: Prometheus rejects a page with two samples of one series, which two meters can produce.
fn unique_sorted<P>(
    written: &mut HashSet<String>,
    points: impl Iterator<Item = P>,
    labels: impl Fn(&P) -> String,
) -> Vec<(String, P)> {
    let points = points.map(|point| (labels(&point), point));
    let mut points: Vec<(String, P)> = points.filter(|(labels, _)| written.insert(labels.clone())).collect();
    points.sort_by(|a, b| a.0.cmp(&b.0));
    points
}

struct Writer<'a> {
    format: Format,
    exemplars: &'a Exemplars,
    out: String,
}

impl Writer<'_> {
    /// The resource, in OpenTelemetry's `target_info` metric.
    fn target(&mut self, labels: &str) {
        let (name, kind) = match self.format {
            Format::OpenMetrics => ("target", "info"),
            Format::Text => ("target_info", "gauge"),
        };
        let _ = writeln!(self.out, "# TYPE {name} {kind}\n# HELP {name} Target metadata\ntarget_info{{{labels}}} 1");
    }

    fn family(&mut self, family: &str, kind: Kind, metrics: &[Scoped<'_>]) {
        let Some(Scoped { metric: first, .. }) = metrics.first() else { return };
        let is_open = self.format == Format::OpenMetrics;
        let total = if kind == Kind::Counter { "_total" } else { "" };
        // `# TYPE` names the family in OpenMetrics, and the sample in Prometheus text.
        let named = if is_open { family.to_owned() } else { format!("{family}{total}") };
        let help = escaped(first.description(), is_open);
        let _ = writeln!(self.out, "# HELP {named} {help}\n# TYPE {named} {}", kind.name());
        if let Some(unit) =
            unit_name(first.unit(), kind).filter(|unit| is_open && family.ends_with(&format!("_{unit}")))
        {
            let _ = writeln!(self.out, "# UNIT {named} {unit}");
        }
        let sample = format!("{family}{total}");
        let mut written = HashSet::new();
        for scoped in metrics {
            match scoped.metric.data() {
                AggregatedMetrics::F64(data) => self.samples(&mut written, &sample, scoped, data),
                AggregatedMetrics::U64(data) => self.samples(&mut written, &sample, scoped, data),
                AggregatedMetrics::I64(data) => self.samples(&mut written, &sample, scoped, data),
            }
        }
    }

    fn samples<T: Display + Copy>(
        &mut self,
        written: &mut HashSet<String>,
        sample: &str,
        of: &Scoped<'_>,
        data: &MetricData<T>,
    ) {
        match data {
            MetricData::Gauge(gauge) => {
                for (labels, point) in
                    unique_sorted(written, gauge.data_points(), |point| of.labels(point.attributes()))
                {
                    self.sample(sample, "", &labels, point.value(), None);
                }
            }
            MetricData::Sum(sum) => {
                for (labels, point) in unique_sorted(written, sum.data_points(), |point| of.labels(point.attributes()))
                {
                    let exemplar = self.series(of, &labels).and_then(|series| series.get(0));
                    self.sample(sample, "", &labels, point.value(), exemplar);
                }
            }
            MetricData::Histogram(histogram) => {
                let points = unique_sorted(written, histogram.data_points(), |point| of.labels(point.attributes()));
                for (labels, point) in points {
                    let buckets = point.bounds().chain([f64::INFINITY]).zip(point.bucket_counts());
                    self.histogram(sample, of, &labels, buckets, point.count(), point.sum());
                }
            }
            // Neither format can express exponential buckets.
            MetricData::ExponentialHistogram(histogram) => {
                let points = unique_sorted(written, histogram.data_points(), |point| of.labels(point.attributes()));
                for (labels, point) in points {
                    let count = point.count() as u64;
                    self.histogram(sample, of, &labels, [(f64::INFINITY, count)].into_iter(), count, point.sum());
                }
            }
        }
    }

    fn histogram<T: Display>(
        &mut self,
        family: &str,
        of: &Scoped<'_>,
        labels: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: T,
    ) {
        let series = self.series(of, labels);
        let mut below = 0u64;
        for (index, (bound, here)) in buckets.enumerate() {
            below += here;
            let labels = joined(labels, &format!("{BOUND}=\"{}\"", self.bound(bound)));
            let exemplar = series.as_ref().and_then(|series| series.get(index));
            self.sample(family, "_bucket", &labels, below, exemplar);
        }
        self.sample(family, "_sum", labels, sum, None);
        self.sample(family, "_count", labels, count, None);
    }

    fn series(&self, of: &Scoped<'_>, labels: &str) -> Option<Arc<SeriesExemplars>> {
        if self.format == Format::Text {
            return None;
        }
        let own = labels.strip_suffix(&*of.scope).unwrap_or(labels);
        self.exemplars.find(of.metric.name(), own.strip_suffix(',').unwrap_or(own))
    }

    /// OpenMetrics requires a decimal point in bounds.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            Format::OpenMetrics if bound.is_finite() => format!("{bound:?}"),
            _ => number_text(bound),
        }
    }

    fn sample(&mut self, family: &str, suffix: &str, labels: &str, value: impl Display, exemplar: Option<Exemplar>) {
        let value = number_text(value);
        let _ = match labels {
            "" => write!(self.out, "{family}{suffix} {value}"),
            _ => write!(self.out, "{family}{suffix}{{{labels}}} {value}"),
        };
        if let Some(exemplar) = exemplar {
            let _ = write!(self.out, " # {}", exemplar.text());
        }
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clashing_names_are_written_once() {
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
            let text = telemetry.exposition(format).expect("a page");
            let mut written = HashSet::new();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let series = line.split(" # ").next().and_then(|sample| sample.rsplit_once(' ')).expect("a sample").0;
                assert!(written.insert(series), "{series} comes twice");
            }
            let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            let families: Vec<&str> = families.filter_map(|line| line.split(' ').next()).collect();
            for clashing in ["wait_count", "wait_count_total", "hits_created"] {
                assert!(!families.contains(&clashing), "{clashing} clashes with another family");
            }
            assert_eq!(families.iter().filter(|family| family.starts_with("target")).count(), 1);
            for series in ["hits_total{exported_le=\"x\"}", "wait_bucket{exported_le=\"x\",le=\"+Inf\"}"] {
                assert!(written.contains(series), "{series} is missing in\n{text}");
            }
        }
    }

    #[test]
    fn infinities_and_nan_are_written() {
        assert_eq!(
            [0.5, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number_text),
            ["0.5", "1", "+Inf", "-Inf", "NaN"]
        );
    }

    #[test]
    fn scope_labels_are_written_if_set() {
        let page = |scope_labels| {
            let telemetry = crate::Telemetry::builder().scope_labels(scope_labels).build().expect("telemetry");
            telemetry.meter("mine").u64_counter("hits").build().add(1, &[KeyValue::new("a", "b")]);
            telemetry.meter("mine").f64_histogram("wait").build().record(1.0, &[]);
            telemetry.exposition(Format::OpenMetrics).expect("a page")
        };
        let (without, with) = (page(false), page(true));
        assert!(without.contains("hits_total{a=\"b\"} 1") && !without.contains("otel_scope"), "{without}");
        assert!(with.contains("hits_total{a=\"b\",otel_scope_name=\"mine\"} 1"), "{with}");
        assert!(with.contains("wait_bucket{otel_scope_name=\"mine\",le=\"+Inf\"} 1"), "{with}");
        assert!(with.contains("otel_scope_name=\"async_endpoints\",otel_scope_version="), "{with}");
    }
}
