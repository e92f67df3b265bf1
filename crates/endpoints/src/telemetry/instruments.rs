//! The instruments of jobs and stores, bound to their labels when the endpoints are built: a record looks up the job type
//! alone. This file decides which values become labels.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{JobName, JobStatus, job::AttemptOutcome, store::StoreOperation};
use async_endpoints_telemetry::{
    Attachment, Exemplars,
    opentelemetry::{
        KeyValue,
        metrics::{BoundCounter, BoundHistogram, Counter},
    },
};
use foldhash::HashMap;

use super::{
    catalogue as c,
    cause::Cause,
    series::{OUTCOMES, TypeSeries},
};
use crate::{error::Builtin, sync::Mutex};

/// Maximum number of job types with own series. Others share the label value [`OTHER`].
const MAX_TYPES: usize = 100;
/// Maximum number of undeclared error codes with own series, over all job types.
const MAX_CODES: usize = 50;
/// Label value of job types and error codes without own series.
pub(crate) const OTHER: &str = "_other";

pub(crate) struct Instruments {
    /// Whether measurements are recorded.
    pub(super) measures: bool,
    types: HashMap<JobName, Arc<TypeSeries>>,
    other: Arc<TypeSeries>,
    failed: Counter<u64>,
    attempts: Counter<u64>,
    /// Error codes that job types declare.
    declared: HashSet<&'static str>,
    /// Undeclared error codes that have series.
    codes: Mutex<HashSet<Box<str>>>,
    overflow: BoundCounter<u64>,
    /// By operation, then ok and error.
    operations: Vec<[BoundHistogram<f64>; 2]>,
    exemplars: Exemplars,
}

/// End of an attempt that the store accepted.
pub(crate) struct AttemptEnd<'a> {
    pub(crate) outcome: AttemptOutcome,
    /// Error code; empty without an error.
    pub(crate) code: &'a str,
    /// The job's status afterwards.
    pub(crate) status: JobStatus,
    pub(crate) now: Instant,
    pub(crate) cause: Cause,
}

impl Instruments {
    /// Creates all series of these job types and their error codes, at zero.
    pub(crate) fn new<'a>(
        attachment: &Attachment,
        store: &'static str,
        types: impl Iterator<Item = (&'a JobName, &'static [&'static str])>,
    ) -> Self {
        let failed = attachment.counter(&c::FAILED);
        let attempts = attachment.counter(&c::ATTEMPTS);
        let series = |name: &str| Arc::new(TypeSeries::new(attachment, &attempts, name));
        let types: Vec<_> = types.take(MAX_TYPES).collect();
        let instruments = Self {
            measures: attachment.measures(),
            types: types.iter().map(|(name, _)| ((*name).clone(), series(name.as_str()))).collect(),
            declared: types.iter().flat_map(|(_, codes)| *codes).copied().collect(),
            other: series(OTHER),
            overflow: attachment.counter(&c::OVERFLOW).bind(&[]),
            codes: Mutex::default(),
            operations: operations(attachment, store),
            exemplars: attachment.exemplars().clone(),
            failed,
            attempts,
        };
        instruments.overflow.add(0);
        types.iter().for_each(|(name, codes)| instruments.start_at_zero(name, codes));
        instruments
    }

    /// Creates the series of the library's error codes and of these.
    fn start_at_zero(&self, name: &JobName, codes: &'static [&'static str]) {
        let series = &self.types[name];
        for code in Builtin::FAILURES.iter().chain(codes) {
            let code = KeyValue::new("error_type", *code);
            self.failed.add(0, &[series.label.clone(), code.clone()]);
            for outcome in ["retried", "failed"] {
                self.attempts.add(0, &[series.label.clone(), KeyValue::new("outcome", outcome), code.clone()]);
            }
        }
    }

    /// The series of a job type.
    pub(crate) fn of(&self, name: &JobName) -> &Arc<TypeSeries> {
        self.types.get(name).unwrap_or_else(|| {
            self.overflow.add(1);
            &self.other
        })
    }

    /// Whether a job type has own series.
    pub(crate) fn is_declared(&self, name: &JobName) -> bool {
        self.types.contains_key(name)
    }

    /// The job types with own series.
    pub(crate) fn names(&self) -> impl Iterator<Item = &JobName> {
        self.types.keys()
    }

    pub(crate) fn operation(&self, operation: StoreOperation, ok: bool, took: Duration) {
        self.operations[operation as usize][usize::from(!ok)].record(took.as_secs_f64());
    }

    /// Counts an ended attempt, and its job if the status is terminal.
    pub(crate) fn ended(&self, series: &TypeSeries, end: &AttemptEnd<'_>) {
        if let Some(attempts) = series.attempts(end.outcome) {
            attempts.add(1);
        } else {
            let outcome = OUTCOMES[end.outcome as usize];
            let labels = [series.label.clone(), KeyValue::new("outcome", outcome), self.code(end.code)];
            self.attempts.add(1, &labels);
        }
        if let Some(jobs) = series.jobs(end.status) {
            jobs.add(1);
        } else if end.status == JobStatus::Failed {
            self.failed(series, end);
        }
        if end.outcome == AttemptOutcome::Retried {
            series.retries.add(1);
        }
    }

    fn failed(&self, series: &TypeSeries, end: &AttemptEnd<'_>) {
        let labels = [series.label.clone(), self.code(end.code)];
        self.failed.add(1, &labels);
        self.exemplars.series(c::FAILED.name, &labels, &[]).offer(1.0, end.now, || end.cause.labels());
    }

    /// The label of an error code: the library's codes, declared codes and the first [`MAX_CODES`] others have own values.
    fn code(&self, code: &str) -> KeyValue {
        if let Some(builtin) = Builtin::FAILURES.into_iter().find(|builtin| *builtin == code) {
            return KeyValue::new("error_type", builtin);
        }
        if let Some(declared) = self.declared.get(code) {
            return KeyValue::new("error_type", *declared);
        }
        let mut codes = self.codes.lock();
        if !codes.contains(code) {
            if codes.len() >= MAX_CODES {
                self.overflow.add(1);
                return KeyValue::new("error_type", OTHER);
            }
            codes.insert(code.into());
        }
        KeyValue::new("error_type", code.to_owned())
    }
}

fn operations(attachment: &Attachment, store: &'static str) -> Vec<[BoundHistogram<f64>; 2]> {
    let histogram = attachment.histogram(&c::OPERATION_TIME);
    let bind = |operation: StoreOperation, outcome| {
        let labels = [("store", store), ("operation", operation.as_str()), ("outcome", outcome)];
        histogram.bind(&labels.map(|(name, value)| KeyValue::new(name, value)))
    };
    StoreOperation::ALL.map(|operation| [bind(operation, "ok"), bind(operation, "error")]).into()
}
