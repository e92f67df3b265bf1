//! Progress of running attempts: the handle that handlers report to, and the queue of progress to store.
//!
//! The queue's task stores progress periodically with `report`. The final progress travels in the settlement. Both calls
//! may be in flight at once, and the store's lease check makes every order correct:
//!
//! - A report that arrives before the settlement is overwritten by it: the settlement always carries the last progress.
//! - A report that arrives after the settlement finds the lease ended. The store answers `Fenced::Lost` and changes nothing.
//! - Reports of one attempt do not overtake each other, since one task sends them and awaits each answer. A report that
//!   was given up at its time limit may still be applied after a later one. The job then shows older progress until the
//!   next report or the settlement.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use async_endpoints_core::{
    StoreError,
    limits::BATCH_JOBS,
    store::{Lease, Report, ReportedProgress, Store},
};
use tokio::sync::Notify;

use crate::{error::cut, store_call::limited, sync::Mutex};

/// Maximum size of a progress message, in bytes.
const MESSAGE_BYTES: usize = 1 << 10;
/// Pause between two flushes. Progress must be visible within half a second of a change.
const PACE: Duration = Duration::from_millis(200);
/// Pause between two flushes while the store fails.
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
    is_queued: bool,
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

    /// Returns the last progress, for the settlement. Later changes are not stored.
    pub(crate) fn finish(&self) -> Option<ReportedProgress> {
        let mut state = self.0.state.lock();
        state.is_finished = true;
        state.progress.clone()
    }

    fn change(&self, change: impl FnOnce(&mut ReportedProgress)) {
        let none = ReportedProgress { completed: 0, total: None, percent: None, message: None };
        change(self.0.state.lock().progress.get_or_insert(none));
        self.0.enqueue();
    }
}

impl Reporter {
    fn enqueue(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.is_finished && !std::mem::replace(&mut state.is_queued, true) {
            self.queue.push(Arc::downgrade(self));
        }
    }

    /// Returns the progress to store. A later change enqueues the reporter again.
    fn dequeue(&self) -> Option<Report> {
        let mut state = self.state.lock();
        state.is_queued = false;
        let progress = state.progress.clone().filter(|_| !state.is_finished)?;
        Some(Report { lease: self.lease, progress: Some(progress), logs: Vec::new() })
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

/// The attempts of a worker that have progress to store.
#[derive(Default)]
pub(crate) struct ProgressQueue {
    changed: Mutex<Vec<Weak<Reporter>>>,
    wake: Notify,
}

impl ProgressQueue {
    /// Creates the handle of one attempt.
    pub(crate) fn reporter(self: &Arc<Self>, lease: Lease) -> ProgressReporter {
        ProgressReporter(Arc::new(Reporter { lease, queue: self.clone(), state: Mutex::default() }))
    }

    /// Stores progress periodically, for all attempts together, in calls limited to `limit` each. Never returns.
    pub(crate) async fn run(&self, store: &dyn Store, limit: Duration, log_failure: impl Fn(&StoreError)) {
        loop {
            self.wake.notified().await;
            let flushed = self.flush(store, limit).await;
            let pace = if flushed.is_ok() { PACE } else { OUTAGE_PACE };
            let _ = flushed.inspect_err(&log_failure);
            tokio::time::sleep(pace).await;
        }
    }

    /// A lost lease needs no action here: the next renewal detects it and stops the handler.
    async fn flush(&self, store: &dyn Store, limit: Duration) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut *self.changed.lock());
        let changed: Vec<Arc<Reporter>> = changed.iter().filter_map(Weak::upgrade).collect();
        let mut result = Ok(());
        for batch in changed.chunks(BATCH_JOBS) {
            let reports: Vec<Report> = batch.iter().filter_map(|reporter| reporter.dequeue()).collect();
            if reports.is_empty() {
                continue;
            }
            if let Err(error) = limited(limit, store.report(&reports)).await {
                batch.iter().for_each(Reporter::enqueue);
                result = Err(error);
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
        assert_eq!(progress.finish().map(|progress| progress.completed), Some(1));
        progress.completed(2);
        assert_eq!((queued(&queue), progress.0.dequeue()), (1, None));
    }
}
