//! Progress and log lines of running attempts: the handle that handlers report to, and the queue of attempts to store.
//!
//! The queue's task stores both periodically with `report`. The final progress and the last lines travel in the
//! settlement, which waits for the attempt's own report, so that each line is in one of the calls. An attempt that ends
//! before the next report needs none.
//!
//! - A settlement that cannot wait may overtake a report. The store then answers `Fenced::Lost` to the report. The
//!   settlement carries the last progress; the report's lines are lost.
//! - Reports of one attempt do not overtake each other, since one task sends them and awaits each answer. A report that
//!   was given up at its time limit may still be applied: the job then shows older progress until the next report or the
//!   settlement, and the report's lines twice.

use std::{
    fmt, mem,
    sync::{Arc, Weak},
    time::Duration,
};

use async_endpoints_core::{
    StoreError,
    job::LogLine,
    limits::{BATCH_BYTES, BATCH_JOBS, LOG_BYTES_PER_ATTEMPT},
    store::{Lease, Report, ReportedProgress, Store},
};
use tokio::sync::Notify;

use crate::{error::cut, log_buffer::LogBuffer, store_call::limited, sync::Mutex};

/// Maximum size of a progress message, in bytes.
const MESSAGE_BYTES: usize = 1 << 10;
/// Time from a change to the flush. Progress and log lines must be visible within half a second.
const PACE: Duration = Duration::from_millis(200);
/// Pause before the next flush after a failed one.
const OUTAGE_PACE: Duration = Duration::from_secs(1);

/// Reports the progress of an attempt. Cheap to clone and to call often: the latest progress is stored within half a
/// second.
#[derive(Clone)]
pub struct ProgressReporter(Arc<Reporter>);

struct Reporter {
    lease: Lease,
    queue: Arc<ProgressQueue>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Option<ReportedProgress>,
    progress_changed: bool,
    /// None for an attempt that logged nothing.
    log: Option<Box<LogBuffer>>,
    is_queued: bool,
    /// A report of the attempt is in flight.
    is_reporting: bool,
    /// The attempt is being settled. Later changes are not stored.
    is_finished: bool,
}

impl ProgressReporter {
    /// Reports `completed` of `total` units as done.
    pub fn set(&self, completed: u64, total: u64) {
        let percent = if total == 0 { 100.0 } else { completed as f64 * 100.0 / total as f64 };
        self.change(|progress| {
            (progress.completed, progress.total) = (completed, Some(total));
            progress.percent = raised(progress.percent, percent);
        });
    }

    /// Reports `completed` units as done, of an unknown total.
    pub fn completed(&self, completed: u64) {
        self.change(|progress| progress.completed = completed);
    }

    /// Reports a percentage from 0 to 100. The percentage never falls within an attempt; NaN is ignored.
    pub fn percent(&self, percent: f64) {
        self.change(|progress| progress.percent = raised(progress.percent, percent));
    }

    /// Reports what the handler is doing. At most 1 KiB is kept.
    pub fn message(&self, message: impl Into<String>) {
        let message = cut(message.into(), MESSAGE_BYTES);
        self.change(|progress| progress.message = Some(message));
    }

    /// The latest reported progress.
    pub fn current(&self) -> Option<ReportedProgress> {
        self.0.state.lock().progress.clone()
    }

    /// Appends a log line of the attempt. Ignored once the attempt is being settled.
    pub(crate) fn log(&self, line: LogLine) {
        self.0.change(|state| state.log.get_or_insert_default().push(line));
    }

    /// Waits until no report of the attempt is in flight.
    pub(crate) async fn report_ended(&self) {
        loop {
            let ended = self.0.queue.report_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.0.state.lock().is_reporting {
                return;
            }
            ended.await;
        }
    }

    /// Returns the last progress and the lines that are not stored, for the settlement. Later changes are not stored.
    pub(crate) fn finish(&self) -> (Option<ReportedProgress>, Vec<LogLine>) {
        let mut state = self.0.state.lock();
        state.is_finished = true;
        (state.progress.clone(), state.log.take().map(|log| log.finish()).unwrap_or_default())
    }

    fn change(&self, change: impl FnOnce(&mut ReportedProgress)) {
        let none = ReportedProgress { completed: 0, total: None, percent: None, message: None };
        self.0.change(|state| {
            change(state.progress.get_or_insert(none));
            state.progress_changed = true;
        });
    }
}

impl Reporter {
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        if state.is_finished {
            return;
        }
        change(&mut state);
        if !mem::replace(&mut state.is_queued, true) {
            self.queue.push(Arc::downgrade(self));
        }
    }

    /// Returns what to store. A later change enqueues the reporter again.
    fn dequeue(&self) -> Option<Report> {
        let mut state = self.state.lock();
        state.is_queued = false;
        if state.is_finished {
            return None;
        }
        let changed = mem::take(&mut state.progress_changed);
        let progress = state.progress.clone().filter(|_| changed);
        let logs = state.log.as_mut().map(|log| log.take()).unwrap_or_default();
        state.is_reporting = progress.is_some() || !logs.is_empty();
        state.is_reporting.then_some(Report { lease: self.lease, progress, logs })
    }

    /// Takes back a report that is not stored, to send it again.
    fn put_back(self: &Arc<Self>, report: Report) {
        self.change(|state| {
            state.progress_changed |= report.progress.is_some();
            if let Some(log) = &mut state.log {
                log.put_back(report.logs);
            }
        });
    }
}

/// The higher percentage, from 0 to 100. NaN changes nothing.
fn raised(before: Option<f64>, percent: f64) -> Option<f64> {
    if percent.is_nan() { before } else { Some(percent.clamp(0.0, 100.0).max(before.unwrap_or(0.0))) }
}

impl fmt::Debug for ProgressReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProgressReporter").field(&self.current()).finish()
    }
}

/// The attempts of a worker that have progress or log lines to store.
#[derive(Default)]
pub(crate) struct ProgressQueue {
    changed: Mutex<Vec<Weak<Reporter>>>,
    wake: Notify,
    report_ended: Notify,
}

/// Reports in one call. Dropping it returns those that are not stored to their attempts.
struct Batch<'a> {
    queue: &'a ProgressQueue,
    reporters: Vec<Arc<Reporter>>,
    reports: Vec<Report>,
}

impl<'a> Batch<'a> {
    fn next(queue: &'a ProgressQueue, changed: &mut impl Iterator<Item = Arc<Reporter>>) -> Option<Self> {
        let mut batch = Self { queue, reporters: Vec::new(), reports: Vec::new() };
        let mut bytes = 0;
        while batch.reports.len() < BATCH_JOBS && bytes <= BATCH_BYTES - LOG_BYTES_PER_ATTEMPT {
            let Some(reporter) = changed.next() else { break };
            if let Some(report) = reporter.dequeue() {
                bytes += report.logs.iter().map(LogLine::bytes).sum::<usize>();
                batch.reporters.push(reporter);
                batch.reports.push(report);
            }
        }
        (!batch.reports.is_empty()).then_some(batch)
    }

    /// A lost lease needs no action here: the next renewal detects it and stops the handler.
    fn stored(mut self) {
        self.reports.clear();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for (reporter, report) in self.reporters.iter().zip(self.reports.drain(..)) {
            reporter.put_back(report);
        }
        self.reporters.iter().for_each(|reporter| reporter.state.lock().is_reporting = false);
        self.queue.report_ended.notify_waiters();
    }
}

impl ProgressQueue {
    /// Creates the handle of one attempt.
    pub(crate) fn reporter(self: &Arc<Self>, lease: Lease) -> ProgressReporter {
        ProgressReporter(Arc::new(Reporter { lease, queue: self.clone(), state: Mutex::default() }))
    }

    /// Stores changes periodically, for all attempts together, in calls limited to `limit` each. Never returns.
    pub(crate) async fn run(&self, store: &dyn Store, limit: Duration, log_failure: impl Fn(&StoreError)) {
        let mut pace = PACE;
        loop {
            self.wake.notified().await;
            tokio::time::sleep(pace).await;
            let flushed = self.flush(store, limit).await.inspect_err(&log_failure);
            pace = if flushed.is_ok() { PACE } else { OUTAGE_PACE };
        }
    }

    async fn flush(&self, store: &dyn Store, limit: Duration) -> Result<(), StoreError> {
        let changed = mem::take(&mut *self.changed.lock());
        let mut changed = changed.iter().filter_map(Weak::upgrade);
        let mut result = Ok(());
        while let Some(batch) = Batch::next(self, &mut changed) {
            match limited(limit, store.report(&batch.reports)).await {
                Ok(_) => batch.stored(),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn push(&self, reporter: Weak<Reporter>) {
        self.changed.lock().push(reporter);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{JobId, store::LeaseToken};

    use super::*;

    fn reporter() -> (Arc<ProgressQueue>, ProgressReporter) {
        let queue = Arc::<ProgressQueue>::default();
        let reporter = queue.reporter(Lease { job: JobId::random(), token: LeaseToken::random() });
        (queue, reporter)
    }

    fn queued(queue: &ProgressQueue) -> usize {
        queue.changed.lock().len()
    }

    #[test]
    fn percent_never_falls_and_stays_in_range() {
        let (_queue, progress) = reporter();
        let percent = || progress.current().and_then(|progress| progress.percent);
        progress.set(50, 100);
        progress.percent(20.0);
        progress.percent(f64::NAN);
        assert_eq!(percent(), Some(50.0));
        progress.set(7, 5);
        assert_eq!(percent(), Some(100.0));
        progress.set(0, 0);
        assert_eq!(percent(), Some(100.0));
    }

    #[test]
    fn changes_are_queued_once_until_taken() {
        let (queue, progress) = reporter();
        assert_eq!(progress.0.dequeue(), None);
        progress.completed(1);
        progress.message("x".repeat(5000));
        assert_eq!(queued(&queue), 1);
        let stored = progress.0.dequeue().and_then(|report| report.progress).expect("progress");
        assert_eq!((stored.completed, stored.message.map(|message| message.len())), (1, Some(1024)));
        progress.completed(2);
        assert_eq!(queued(&queue), 2, "queued again after it was taken");
    }

    #[test]
    fn change_after_finish_is_not_queued() {
        let (queue, progress) = reporter();
        progress.completed(1);
        assert_eq!(progress.finish().0.map(|progress| progress.completed), Some(1));
        progress.completed(2);
        assert_eq!((queued(&queue), progress.0.dequeue()), (1, None));
    }
}
