//! The instruments of jobs and stores, bound to their labels when the endpoints are built: recording looks nothing up but
//! the job type. What may be a label is decided here and nowhere else.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::{JobName, JobStatus, job::AttemptOutcome, store::StoreOperation};
use foldhash::HashMap;
use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter},
};

use super::{
    catalogue::{self as c, Instrument},
    exemplars::{Cause, Exemplars, Series},
};
use crate::error::Builtin;

/// Job types that have series of their own; all others share the label value [`OTHER`].
const TYPES: usize = 100;
/// Error codes of an application's own that have series of their own, in all.
const CODES: usize = 50;
/// The code of jobs and attempts whose worker died or was cut off.
pub(crate) const LOST: &str = "WORKER_LOST";
/// The label value of everything that has none of its own.
pub(crate) const OTHER: &str = "_other";

/// What became of a submission.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Submission {
    Accepted,
    Duplicate,
    Conflict,
    Invalid,
    Rejected,
}

impl Submission {
    const ALL: [(Self, &str); 5] = [
        (Self::Accepted, "accepted"),
        (Self::Duplicate, "duplicate"),
        (Self::Conflict, "conflict"),
        (Self::Invalid, "invalid"),
        (Self::Rejected, "rejected"),
    ];
}

/// A histogram of one series, and the exemplars of its buckets.
pub(crate) struct Timer {
    histogram: BoundHistogram<f64>,
    exemplars: Arc<Series>,
}

impl Timer {
    pub(crate) fn record(&self, duration: Duration, now: Instant, cause: impl FnOnce() -> Cause) {
        let seconds = duration.as_secs_f64();
        self.histogram.record(seconds);
        self.exemplars.offer(seconds, now, cause);
    }
}

/// The series of one job type.
pub(crate) struct OfType {
    label: KeyValue,
    pub(crate) queued: BoundCounter<u64>,
    submissions: [BoundCounter<u64>; 5],
    processed: BoundCounter<u64>,
    canceled: BoundCounter<u64>,
    retries: BoundCounter<u64>,
    pub(crate) recovered: BoundCounter<u64>,
    /// Of those outcomes that have no error code, or always the same.
    completed: BoundCounter<u64>,
    canceled_attempts: BoundCounter<u64>,
    released: BoundCounter<u64>,
    lost: BoundCounter<u64>,
    pub(crate) queue_time: Timer,
    /// How long a lost attempt ran nobody knows.
    processing_time: [Timer; 5],
    /// Completed, failed, canceled.
    total_time: [Timer; 3],
}

/// Everything that jobs and stores are counted and timed with.
pub(crate) struct Instruments {
    types: HashMap<JobName, Arc<OfType>>,
    other: Arc<OfType>,
    failed: Counter<u64>,
    attempts: Counter<u64>,
    /// Application codes that have series.
    codes: Mutex<HashSet<Box<str>>>,
    overflow: BoundCounter<u64>,
    /// By operation, ok and error.
    operations: Vec<[BoundHistogram<f64>; 2]>,
    exemplars: Arc<Exemplars>,
    no_bounds: Arc<[f64]>,
}

/// An end of an attempt that the store accepted.
pub(crate) struct End<'a> {
    pub(crate) outcome: AttemptOutcome,
    /// The code of what went wrong, if something did.
    pub(crate) code: &'a str,
    /// Where the job went by it.
    pub(crate) status: JobStatus,
    pub(crate) now: Instant,
    pub(crate) cause: Cause,
}

impl Instruments {
    /// Binds everything for these job types: from then on each series is there, at zero.
    pub(crate) fn new<'a>(
        meter: &Meter,
        exemplars: &Arc<Exemplars>,
        bounds: &Arc<[f64]>,
        store: &'static str,
        types: impl Iterator<Item = &'a JobName>,
    ) -> Self {
        let bind = Binder { meter, exemplars, bounds };
        let failed = bind.counter(&c::FAILED);
        let attempts = bind.counter(&c::ATTEMPTS);
        let of_type = |name: &str| Arc::new(OfType::new(&bind, &attempts, name));
        let instruments = Self {
            types: types.take(TYPES).map(|name| (name.clone(), of_type(name.as_str()))).collect(),
            other: of_type(OTHER),
            overflow: bind.counter(&c::OVERFLOW).bind(&[]),
            codes: Mutex::default(),
            operations: bind.operations(store),
            exemplars: exemplars.clone(),
            no_bounds: Arc::new([]),
            failed,
            attempts,
        };
        instruments.overflow.add(0);
        instruments.zero();
        instruments
    }

    /// The series of errors that the library itself tells of.
    fn zero(&self) {
        for of_type in self.types.values() {
            for code in Builtin::FAILURES {
                let label = KeyValue::new("error_type", code);
                self.failed.add(0, &[of_type.label.clone(), label.clone()]);
                // What its worker loses is an attempt's outcome of its own.
                for outcome in ["retried", "failed"].into_iter().filter(|_| code != LOST) {
                    self.attempts.add(0, &[of_type.label.clone(), KeyValue::new("outcome", outcome), label.clone()]);
                }
            }
        }
    }

    /// The series of a job type.
    pub(crate) fn of(&self, name: &JobName) -> &Arc<OfType> {
        self.types.get(name).unwrap_or_else(|| {
            self.overflow.add(1);
            &self.other
        })
    }

    /// Whether a job type has series of its own.
    pub(crate) fn is_declared(&self, name: &JobName) -> bool {
        self.types.contains_key(name)
    }

    /// The job types that have series.
    pub(crate) fn names(&self) -> impl Iterator<Item = &JobName> {
        self.types.keys()
    }

    pub(crate) fn operation(&self, operation: StoreOperation, ok: bool, took: Duration) {
        self.operations[operation as usize][usize::from(!ok)].record(took.as_secs_f64());
    }

    /// An attempt that ended, and its job with it or not.
    pub(crate) fn ended(&self, of_type: &OfType, end: &End<'_>) {
        match end.outcome {
            AttemptOutcome::Completed => of_type.completed.add(1),
            AttemptOutcome::Retried | AttemptOutcome::Failed => {
                let outcome = KeyValue::new("outcome", outcome_name(end.outcome));
                self.attempts.add(1, &[of_type.label.clone(), outcome, self.code(end.code)]);
            }
            AttemptOutcome::Canceled => of_type.canceled_attempts.add(1),
            AttemptOutcome::Released => of_type.released.add(1),
            AttemptOutcome::Lost => of_type.lost.add(1),
        }
        match end.status {
            JobStatus::Completed => of_type.processed.add(1),
            JobStatus::Canceled => of_type.canceled.add(1),
            JobStatus::Failed => self.failed(of_type, end),
            JobStatus::Queued | JobStatus::Scheduled | JobStatus::InProgress => {}
        }
        if end.outcome == AttemptOutcome::Retried {
            of_type.retries.add(1);
        }
    }

    fn failed(&self, of_type: &OfType, end: &End<'_>) {
        let labels = [of_type.label.clone(), self.code(end.code)];
        self.failed.add(1, &labels);
        self.exemplars.series(c::FAILED.name, &labels, &self.no_bounds).offer(1.0, end.now, || end.cause);
    }

    /// An error code as a label: ours, or one of the first that the application used.
    fn code(&self, code: &str) -> KeyValue {
        if let Some(ours) = Builtin::FAILURES.into_iter().find(|ours| *ours == code) {
            return KeyValue::new("error_type", ours);
        }
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if !codes.contains(code) {
            if codes.len() >= CODES {
                self.overflow.add(1);
                return KeyValue::new("error_type", OTHER);
            }
            codes.insert(code.into());
        }
        KeyValue::new("error_type", code.to_owned())
    }
}

impl OfType {
    fn new(bind: &Binder<'_>, attempts: &Counter<u64>, name: &str) -> Self {
        let label = KeyValue::new("job_type", name.to_owned());
        let one = [label.clone()];
        let with = |name: &'static str, value: &'static str| [label.clone(), KeyValue::new(name, value)];
        let ended_by = |outcome: &'static str, code: &'static str| {
            [label.clone(), KeyValue::new("outcome", outcome), KeyValue::new("error_type", code)]
        };
        let submissions = bind.counter(&c::SUBMISSIONS);
        let counter = |instrument: &Instrument| bind.counter(instrument).bind(&one);
        Self {
            queued: counter(&c::QUEUED),
            submissions: Submission::ALL.map(|(_, result)| submissions.bind(&with("result", result))),
            processed: counter(&c::PROCESSED),
            canceled: counter(&c::CANCELED),
            retries: counter(&c::RETRIES),
            recovered: counter(&c::RECOVERED),
            completed: attempts.bind(&with("outcome", "completed")),
            canceled_attempts: attempts.bind(&ended_by("canceled", "JOB_CANCELED")),
            released: attempts.bind(&with("outcome", "released")),
            lost: attempts.bind(&ended_by("lost", LOST)),
            queue_time: bind.timer(&c::QUEUE_TIME, &one),
            processing_time: ["completed", "retried", "failed", "canceled", "released"]
                .map(|outcome| bind.timer(&c::PROCESSING_TIME, &with("outcome", outcome))),
            total_time: ["completed", "failed", "canceled"]
                .map(|outcome| bind.timer(&c::TOTAL_TIME, &with("outcome", outcome))),
            label,
        }
    }

    pub(crate) fn submission(&self, result: Submission) {
        self.submissions[result as usize].add(1);
    }

    /// How long an attempt ran that its worker ended.
    pub(crate) fn processing_time(&self, outcome: AttemptOutcome) -> Option<&Timer> {
        self.processing_time.get(outcome as usize)
    }

    /// A job that was canceled before it ran.
    pub(crate) fn canceled_unstarted(&self, total: Duration, cause: Cause) {
        self.canceled.add(1);
        self.total_time[2].record(total, Instant::now(), || cause);
    }

    /// How long a job took, if it has ended.
    pub(crate) fn total_time(&self, status: JobStatus) -> Option<&Timer> {
        let place = match status {
            JobStatus::Completed => 0,
            JobStatus::Failed => 1,
            JobStatus::Canceled => 2,
            JobStatus::Queued | JobStatus::Scheduled | JobStatus::InProgress => return None,
        };
        Some(&self.total_time[place])
    }
}

pub(crate) const fn outcome_name(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Completed => "completed",
        AttemptOutcome::Retried => "retried",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Canceled => "canceled",
        AttemptOutcome::Released => "released",
        AttemptOutcome::Lost => "lost",
    }
}

/// The one place where instruments are made of the catalogue.
struct Binder<'a> {
    meter: &'a Meter,
    exemplars: &'a Exemplars,
    /// Of the histograms of jobs.
    bounds: &'a Arc<[f64]>,
}

impl Binder<'_> {
    fn counter(&self, instrument: &Instrument) -> Counter<u64> {
        counter(self.meter, instrument)
    }

    fn timer(&self, instrument: &Instrument, labels: &[KeyValue]) -> Timer {
        let histogram = histogram(self.meter, instrument, self.bounds);
        let exemplars = self.exemplars.series(instrument.name, labels, self.bounds);
        Timer { histogram: histogram.bind(labels), exemplars }
    }

    fn operations(&self, store: &'static str) -> Vec<[BoundHistogram<f64>; 2]> {
        let histogram = histogram(self.meter, &c::OPERATION_TIME, c::OPERATION_TIME.bounds());
        let bind = |operation, outcome| {
            let labels = [("store", store), ("operation", operation), ("outcome", outcome)];
            histogram.bind(&labels.map(|(name, value)| KeyValue::new(name, value)))
        };
        StoreOperation::ALL.map(|call| [bind(call.as_str(), "ok"), bind(call.as_str(), "error")]).into()
    }
}

pub(crate) fn counter(meter: &Meter, instrument: &Instrument) -> Counter<u64> {
    meter.u64_counter(instrument.name).with_unit(instrument.unit).with_description(instrument.help).build()
}

pub(crate) fn histogram(meter: &Meter, instrument: &Instrument, bounds: &[f64]) -> Histogram<f64> {
    let builder = meter.f64_histogram(instrument.name).with_unit(instrument.unit).with_description(instrument.help);
    builder.with_boundaries(bounds.to_vec()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_of_their_places() {
        assert!(Submission::ALL.iter().enumerate().all(|(place, (result, _))| *result as usize == place));
        assert!(AttemptOutcome::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
    }
}
