//! Exemplars: for each bucket of a series, a recent measurement with labels such as a trace id. This version of the
//! OpenTelemetry SDK keeps none.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry::KeyValue;

use crate::{
    naming::{escaped, labels},
    sync::lock,
};

/// Minimum age of an exemplar before another one replaces it. Most records then cost one atomic load.
const FRESH: Duration = Duration::from_secs(1);

/// Maximum length of an exemplar's label names and values together, in characters. OpenMetrics sets it.
const MAX_LABELS: usize = 128;

/// Names and values of an exemplar's labels: together at most 128 characters, or the exemplar is dropped.
pub type ExemplarLabels = Vec<(&'static str, String)>;

#[derive(Clone, Debug)]
pub(crate) struct Exemplar {
    /// As written between braces.
    labels: String,
    value: f64,
    at: SystemTime,
}

impl Exemplar {
    /// Text of the exemplar in OpenMetrics, from its braces on.
    pub(crate) fn text(&self) -> String {
        let seconds = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        format!("{{{}}} {} {seconds:.3}", self.labels, self.value)
    }
}

/// Exemplars of one series, one per bucket. The last bucket has no upper bound.
#[derive(Debug)]
pub struct SeriesExemplars {
    bounds: Box<[f64]>,
    began: Instant,
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Milliseconds from `began` to the exemplar, plus one. Zero without an exemplar.
    at: AtomicU64,
    exemplar: Mutex<Option<Exemplar>>,
}

impl SeriesExemplars {
    fn new(bounds: &[f64], began: Instant) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Bucket::default()).collect();
        Self { bounds: bounds.into(), began, buckets }
    }

    /// Makes this measurement the exemplar of its bucket, unless the present one is younger than a second.
    pub fn offer(&self, value: f64, now: Instant, labels: impl FnOnce() -> ExemplarLabels) {
        let bucket = &self.buckets[self.bounds.partition_point(|bound| *bound < value)];
        let (now, before) =
            (now.saturating_duration_since(self.began).as_millis() as u64 + 1, bucket.at.load(Ordering::Relaxed));
        if before == 0 || now >= before + FRESH.as_millis() as u64 {
            bucket.at.store(now, Ordering::Relaxed);
            if let Some(labels) = text(&labels()) {
                *lock(&bucket.exemplar) = Some(Exemplar { labels, value, at: SystemTime::now() });
            }
        }
    }

    pub(crate) fn get(&self, bucket: usize) -> Option<Exemplar> {
        lock(&self.buckets.get(bucket)?.exemplar).clone()
    }
}

/// Labels as written between braces, in their order. None if they are too long.
fn text(labels: &ExemplarLabels) -> Option<String> {
    let length: usize = labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    let mut text = String::new();
    for (name, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{}\"", escaped(value, true));
    }
    (length <= MAX_LABELS).then_some(text)
}

/// Exemplars of all series. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct Exemplars(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// By metric name and labels, as in `name{labels}`.
    series: Mutex<HashMap<String, Arc<SeriesExemplars>>>,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), series: Mutex::default() }))
    }
}

impl Exemplars {
    /// Exemplars of the series with these labels, created on first use. `bounds` are the histogram's, empty for a counter.
    pub fn series(&self, metric: &str, attributes: &[KeyValue], bounds: &[f64]) -> Arc<SeriesExemplars> {
        let mut series = lock(&self.0.series);
        let series = series.entry(key(metric, &labels(attributes.iter())));
        series.or_insert_with(|| Arc::new(SeriesExemplars::new(bounds, self.0.began))).clone()
    }

    /// Exemplars of a series by its labels as written between braces.
    pub(crate) fn find(&self, metric: &str, labels: &str) -> Option<Arc<SeriesExemplars>> {
        lock(&self.0.series).get(&key(metric, labels)).cloned()
    }
}

fn key(metric: &str, labels: &str) -> String {
    format!("{metric}{{{labels}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_exemplar_is_kept_for_a_second() {
        let exemplars = Exemplars::default();
        let series = exemplars.series("m", &[KeyValue::new("job_type", "A")], &[1.0, 2.0]);
        let began = Instant::now();
        let labels = || vec![("id", "x".to_owned())];
        series.offer(1.0, began, labels);
        series.offer(0.5, began + Duration::from_millis(900), labels);
        series.offer(9.0, began, labels);
        let value = |bucket| series.get(bucket).map(|exemplar| exemplar.value);
        assert_eq!((value(0), value(1), value(2)), (Some(1.0), None, Some(9.0)));
        series.offer(0.5, began + Duration::from_millis(1100), labels);
        assert_eq!(value(0), Some(0.5));
        assert!(exemplars.find("m", "job_type=\"A\"").is_some_and(|found| found.get(2).is_some()));
        assert!(exemplars.find("m", "job_type=\"B\"").is_none());
    }

    #[test]
    fn labels_keep_their_order_and_limit() {
        let labels = |length: usize| vec![("b", "\"".to_owned()), ("a", "x".repeat(length))];
        assert_eq!(text(&labels(1)), Some(r#"b="\"",a="x""#.to_owned()));
        assert_eq!((text(&labels(125)).is_some(), text(&labels(126))), (true, None));
    }
}
