//! Exemplars: for each series that carries them, the latest job behind it, so that a spike leads to a trace and a job. The
//! OpenTelemetry SDK of this version keeps none.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_endpoints_core::{JobId, job::TraceContext};
use opentelemetry::KeyValue;

use super::naming::labels;

/// An exemplar younger than that stays: most records then cost one look at a number.
const FRESH: Duration = Duration::from_secs(1);

/// A span's place in its trace, in hexadecimal digits.
#[derive(Copy, Clone, Debug)]
pub(crate) struct SpanRef {
    trace: [u8; 32],
    span: [u8; 16],
}

impl SpanRef {
    /// The span that a `traceparent` names.
    pub(crate) fn of(trace: &TraceContext) -> Option<Self> {
        let text = trace.traceparent.as_bytes();
        let (id, span) = (text.get(3..35)?, text.get(36..52)?);
        let is_hex = id.iter().chain(span).all(u8::is_ascii_hexdigit);
        is_hex.then_some(Self { trace: id.try_into().ok()?, span: span.try_into().ok()? })
    }
}

/// What stands behind a measurement.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) job: JobId,
    pub(crate) span: Option<SpanRef>,
}

/// One measurement and what stands behind it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Exemplar {
    cause: Cause,
    pub(crate) value: f64,
    at: SystemTime,
}

impl Exemplar {
    /// Its labels, and seconds since the Unix epoch.
    pub(crate) fn write(&self) -> (String, f64) {
        let text = |hex: &[u8]| String::from_utf8_lossy(hex).into_owned();
        let span =
            self.cause.span.map(|span| format!("trace_id=\"{}\",span_id=\"{}\",", text(&span.trace), text(&span.span)));
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        (format!("{}job_id=\"{}\"", span.unwrap_or_default(), self.cause.job), at)
    }
}

/// The exemplars of one series, one for each bucket, the last without a bound.
pub(crate) struct Series {
    bounds: Arc<[f64]>,
    began: Instant,
    places: Box<[Place]>,
}

#[derive(Default)]
struct Place {
    /// Milliseconds since `began`, plus one; zero before the first.
    at: AtomicU64,
    exemplar: Mutex<Option<Exemplar>>,
}

impl Series {
    fn new(bounds: &Arc<[f64]>, began: Instant) -> Self {
        let places = (0..=bounds.len()).map(|_| Place::default()).collect();
        Self { bounds: bounds.clone(), began, places }
    }

    /// Keeps this measurement, if it is time for one.
    pub(crate) fn offer(&self, value: f64, now: Instant, cause: impl FnOnce() -> Cause) {
        let place = &self.places[self.bounds.partition_point(|bound| *bound < value)];
        let (now, before) =
            (now.saturating_duration_since(self.began).as_millis() as u64 + 1, place.at.load(Ordering::Relaxed));
        if before == 0 || now >= before + FRESH.as_millis() as u64 {
            place.at.store(now, Ordering::Relaxed);
            *lock(&place.exemplar) = Some(Exemplar { cause: cause(), value, at: SystemTime::now() });
        }
    }

    /// The exemplar of a bucket.
    pub(crate) fn get(&self, bucket: usize) -> Option<Exemplar> {
        *lock(&self.places.get(bucket)?.exemplar)
    }
}

/// All series that carry exemplars, by the name of their metric and their labels, as `name{labels}`.
pub(crate) struct Exemplars {
    began: Instant,
    series: Mutex<HashMap<String, Arc<Series>>>,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { began: Instant::now(), series: Mutex::default() }
    }
}

impl Exemplars {
    /// The place for a series' exemplars, made when it is first asked for.
    pub(crate) fn series(&self, metric: &str, attributes: &[KeyValue], bounds: &Arc<[f64]>) -> Arc<Series> {
        let mut series = lock(&self.series);
        let series = series.entry(key(metric, &labels(attributes.iter())));
        series.or_insert_with(|| Arc::new(Series::new(bounds, self.began))).clone()
    }

    /// The exemplars of a series, by its labels as they are written.
    pub(crate) fn find(&self, metric: &str, labels: &str) -> Option<Arc<Series>> {
        lock(&self.series).get(&key(metric, labels)).cloned()
    }
}

fn key(metric: &str, labels: &str) -> String {
    format!("{metric}{{{labels}}}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_each_bucket_is_kept_once_a_second() {
        let exemplars = Exemplars::default();
        let bounds: Arc<[f64]> = Arc::new([1.0, 2.0]);
        let series = exemplars.series("m", &[KeyValue::new("job_type", "A")], &bounds);
        let (began, job) = (Instant::now(), JobId::random());
        let cause = || Cause { job, span: None };
        series.offer(1.0, began, cause);
        series.offer(0.5, began + Duration::from_millis(900), cause);
        series.offer(9.0, began, cause);
        let value = |bucket| series.get(bucket).map(|exemplar| exemplar.value);
        assert_eq!((value(0), value(1), value(2)), (Some(1.0), None, Some(9.0)));
        series.offer(0.5, began + Duration::from_millis(1100), cause);
        assert_eq!(value(0), Some(0.5));
        assert!(exemplars.find("m", "job_type=\"A\"").is_some_and(|found| found.get(2).is_some()));
        assert!(exemplars.find("m", "job_type=\"B\"").is_none());
    }

    #[test]
    fn a_label_set_is_short_enough_for_openmetrics() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        let span = SpanRef::of(&TraceContext { traceparent, tracestate: None });
        let exemplar = Exemplar { cause: Cause { job: JobId::random(), span }, value: 1.0, at: UNIX_EPOCH };
        let (labels, at) = exemplar.write();
        assert!(
            labels.starts_with("trace_id=\"0af7651916cd43dd8448eb211c80319c\",span_id=\"b7ad6b7169203331\",job_id=")
        );
        assert!(labels.len() - 3 * "=\"\",".len() <= 128 && at == 0.0, "{labels}");
        assert!(SpanRef::of(&TraceContext { traceparent: "00-".to_owned(), tracestate: None }).is_none());
    }
}
