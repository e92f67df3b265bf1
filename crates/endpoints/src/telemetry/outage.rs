//! A store decorator that logs outages: one line at the start, one a minute, one at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobStore, SharedState, Store, StoreError, forward_store_calls,
    store::{InsertOutcome, NewJob, Result, StoreOperation},
};
use async_endpoints_telemetry::is_logging;
use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{events, store::HANGING};
use crate::sync::Mutex;

/// Interval of the lines during an outage. An outage without a failed call for that long has ended.
const REPEAT: Duration = Duration::from_secs(60);
/// Minimum time since the last failed call at the end of an outage, so that single failures under load are one outage.
const QUIET: Duration = Duration::from_millis(500);

/// Logs transient errors, and calls that are dropped because they take too long.
pub(crate) struct OutageLog {
    inner: Arc<dyn Store>,
    outage: Mutex<Option<Outage>>,
    /// Whether there is an outage. Read without the lock by each successful call.
    is_out: AtomicBool,
}

/// An outage. Only operations that failed in it can end it: a full disk still answers reads.
#[derive(Debug)]
struct Outage {
    began: Instant,
    failed_at: Instant,
    logged_at: Instant,
    failures: u64,
    /// Bits of the operations that failed.
    operations: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Began,
    Continues { since: Duration, failures: u64 },
    Ended { after: Duration, failures: u64 },
}

const fn bit(operation: StoreOperation) -> u32 {
    1 << operation as u32
}

fn failed(outage: &mut Option<Outage>, operation: StoreOperation, now: Instant) -> Option<Line> {
    let Some(current) = outage.as_mut().filter(|outage| now.saturating_duration_since(outage.failed_at) < REPEAT)
    else {
        let operations = bit(operation);
        *outage = Some(Outage { began: now, failed_at: now, logged_at: now, failures: 1, operations });
        return Some(Line::Began);
    };
    current.failed_at = now;
    current.failures += 1;
    current.operations |= bit(operation);
    if now.saturating_duration_since(current.logged_at) < REPEAT {
        return None;
    }
    current.logged_at = now;
    Some(Line::Continues { since: now.saturating_duration_since(current.began), failures: current.failures })
}

fn succeeded(outage: &mut Option<Outage>, operation: StoreOperation, now: Instant) -> Option<Line> {
    let ended = |outage: &mut Outage| {
        outage.operations & bit(operation) != 0 && now.saturating_duration_since(outage.failed_at) >= QUIET
    };
    let ended = outage.take_if(ended)?;
    Some(Line::Ended { after: now.saturating_duration_since(ended.began), failures: ended.failures })
}

/// One call. Dropped without `end`, the call was dropped too.
struct Call<'a> {
    log: &'a OutageLog,
    operation: StoreOperation,
    began: Instant,
    done: bool,
}

impl Call<'_> {
    fn end<T>(mut self, answer: &Result<T>) {
        self.done = true;
        match answer {
            Err(error) if error.is_transient() => self.log.failed(self.operation, error),
            _ => self.log.succeeded(self.operation),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let took = self.began.elapsed();
        if took >= HANGING {
            self.log.failed(self.operation, &StoreError::Unavailable(format!("no answer within {took:.1?}")));
        }
    }
}

impl OutageLog {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, outage: Mutex::default(), is_out: AtomicBool::new(false) }
    }

    async fn observe<'a, T>(
        &self,
        operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let watch = Call { log: self, operation, began: Instant::now(), done: false };
        let answer = call().await;
        watch.end(&answer);
        answer
    }

    fn failed(&self, operation: StoreOperation, error: &StoreError) {
        let mut outage = self.outage.lock();
        let line = failed(&mut outage, operation, Instant::now());
        self.is_out.store(true, Ordering::Relaxed);
        drop(outage);
        match line {
            Some(Line::Began) => events::store_unavailable(operation.as_str(), error),
            Some(Line::Continues { since, failures }) => {
                events::store_still_unavailable(operation.as_str(), error, since, failures);
            }
            _ => {}
        }
    }

    fn succeeded(&self, operation: StoreOperation) {
        if !self.is_out.load(Ordering::Relaxed) {
            return;
        }
        let mut outage = self.outage.lock();
        let line = succeeded(&mut outage, operation, Instant::now());
        self.is_out.store(outage.is_some(), Ordering::Relaxed);
        drop(outage);
        if let Some(Line::Ended { after, failures }) = line {
            events::store_available(after, failures);
        }
    }
}

#[async_trait]
impl JobStore for OutageLog {
    /// Not an `async fn`, so that the job moves into the inner call at once instead of being kept in this future as well.
    fn insert<'s: 'a, 'a>(&'s self, job: NewJob) -> BoxFuture<'a, Result<InsertOutcome>> {
        let call = self.inner.insert(job);
        if !is_logging() {
            return call;
        }
        Box::pin(self.observe(StoreOperation::Insert, || call))
    }

    forward_store_calls!(self.observe => self.inner;
        get, versions, list, logs, payload, stats, claim, renew, report, settle, cancel, retry, reclaim, prune, probe, health);
    forward_store_calls!(self => self.inner; hints, kind);
}

#[async_trait]
impl SharedState for OutageLog {
    forward_store_calls!(self.observe => self.inner; shared_calls);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_is_logged_at_start_each_minute_and_end() {
        let (start, mut outage, mut lines) = (Instant::now(), None, Vec::new());
        let at = |millis: u64| start + Duration::from_millis(millis);
        for call in 0..250 {
            let now = at(call * 500);
            let operation = StoreOperation::ALL[call as usize % 3];
            lines.extend(failed(&mut outage, operation, now));
            // Another operation works during the outage.
            lines.extend(succeeded(&mut outage, StoreOperation::Probe, now));
        }
        let end = at(250 * 500);
        lines.extend(succeeded(&mut outage, StoreOperation::ALL[0], end));
        lines.extend(succeeded(&mut outage, StoreOperation::ALL[1], end));
        let minute = |minutes, failures| Line::Continues { since: REPEAT * minutes, failures };
        let ended = Line::Ended { after: Duration::from_secs(125), failures: 250 };
        assert_eq!(lines, [Line::Began, minute(1, 121), minute(2, 241), ended]);
        assert_eq!(failed(&mut outage, StoreOperation::Get, end), Some(Line::Began));
    }

    #[test]
    fn single_failures_under_load_are_one_outage() {
        let (start, mut outage, mut lines) = (Instant::now(), None, Vec::new());
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            if millis % 100 == 0 {
                lines.extend(failed(&mut outage, StoreOperation::Insert, now));
            } else {
                lines.extend(succeeded(&mut outage, StoreOperation::Insert, now));
            }
        }
        assert_eq!(lines, [Line::Began]);
    }

    #[test]
    fn failure_long_after_the_last_begins_an_outage() {
        let (start, mut outage) = (Instant::now(), None);
        assert_eq!(failed(&mut outage, StoreOperation::List, start), Some(Line::Began));
        assert_eq!(failed(&mut outage, StoreOperation::List, start + REPEAT), Some(Line::Began));
    }
}
