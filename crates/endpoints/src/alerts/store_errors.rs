//! A store decorator that counts calls and failed calls, for the rule about store errors.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobStore, SharedState, Store, StoreError, forward_store_calls,
    store::{InsertOutcome, NewJob, Result, StoreOperation},
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::sync::Mutex;

/// The longest window in seconds.
const SECONDS: usize = 300;
/// Minimum duration of a dropped call that counts as failed. A call dropped earlier ended with the client's connection.
const HANGING: Duration = Duration::from_millis(500);

/// Counts the calls of a process.
#[derive(Debug, Default)]
pub(crate) struct CallCounts {
    calls: AtomicU64,
    failed: AtomicU64,
    /// Both counts at the end of each of the last seconds, oldest first.
    seconds: Mutex<VecDeque<[u64; 2]>>,
}

impl CallCounts {
    fn count<T>(&self, answer: &Result<T>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // A job that cannot be read says nothing of the store's other calls.
        if let Err(StoreError::Unavailable(_) | StoreError::Corrupt(_) | StoreError::Backend { .. }) = answer {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn now(&self) -> [u64; 2] {
        // The failures first, so that there are never more failures than calls.
        let failed = self.failed.load(Ordering::Relaxed);
        [self.calls.load(Ordering::Relaxed), failed]
    }

    /// Ends a second. Called once a second.
    pub(super) fn sample(&self) {
        let mut seconds = self.seconds.lock();
        seconds.push_back(self.now());
        if seconds.len() > SECONDS {
            seconds.pop_front();
        }
    }

    /// Numbers of calls and of failed calls in a window of whole seconds, at most five minutes.
    pub(super) fn within(&self, window: Duration) -> [u64; 2] {
        let seconds = self.seconds.lock();
        let window = usize::try_from(window.as_secs()).unwrap_or(SECONDS).clamp(1, SECONDS);
        let before = seconds.len().checked_sub(window).map_or([0, 0], |first| seconds[first]);
        let now = self.now();
        [now[0] - before[0], now[1] - before[1]]
    }
}

/// Counts the calls of a store.
pub(crate) struct CountedStore {
    inner: Arc<dyn Store>,
    counts: Arc<CallCounts>,
}

/// One call. Dropped without an answer, the call was dropped too.
struct Call<'a> {
    counts: &'a CallCounts,
    began: Instant,
    answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered && self.began.elapsed() >= HANGING {
            self.counts.count::<()>(&Err(StoreError::Unavailable(String::new())));
        }
    }
}

impl CountedStore {
    /// Wraps a store, and returns its counts as well.
    pub(crate) fn around(inner: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<CallCounts>) {
        let counts = Arc::<CallCounts>::default();
        (Arc::new(Self { inner, counts: counts.clone() }), counts)
    }

    async fn observe<'a, T>(
        &self,
        _: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let mut watch = Call { counts: &self.counts, began: Instant::now(), answered: false };
        let answer = call().await;
        watch.answered = true;
        self.counts.count(&answer);
        answer
    }
}

#[async_trait]
impl JobStore for CountedStore {
    /// Not an `async fn`, so that the job moves into the inner call at once instead of being kept in this future as well.
    fn insert<'s: 'a, 'a>(&'s self, job: NewJob) -> BoxFuture<'a, Result<InsertOutcome>> {
        let call = self.inner.insert(job);
        Box::pin(self.observe(StoreOperation::Insert, || call))
    }

    forward_store_calls!(self.observe => self.inner;
        get, versions, list, logs, payload, stats, claim, renew, report, settle, cancel, retry, reclaim, prune, probe, health);
    forward_store_calls!(self => self.inner; hints, kind);
}

#[async_trait]
impl SharedState for CountedStore {
    forward_store_calls!(self.observe => self.inner; shared_calls);
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::MemoryStore;
    use async_endpoints_testkit::FlakyStore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn window_counts_its_calls_alone() {
        let flaky = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let (store, counts) = CountedStore::around(flaky.clone());
        store.probe().await.expect("memory answers");
        counts.sample();
        flaky.outage(true);
        for _ in 0..3 {
            store.probe().await.expect_err("an outage");
        }
        assert_eq!(counts.within(Duration::from_secs(1)), [3, 3]);
        assert_eq!(counts.within(Duration::from_secs(2)), [4, 3]);
        (0..SECONDS).for_each(|_| counts.sample());
        assert_eq!(counts.within(Duration::MAX), [0, 0], "five minutes later");
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_call_fails_once_it_hangs() {
        let hanging = FlakyStore::new(Arc::new(MemoryStore::new())).delays(Duration::from_secs(3600));
        let (store, counts) = CountedStore::around(Arc::new(hanging));
        for (limit, failed) in [(100, 0), (600, 1)] {
            let call = tokio::time::timeout(Duration::from_millis(limit), store.probe()).await;
            assert!(call.is_err(), "the call hangs");
            assert_eq!(counts.within(Duration::MAX), [failed, failed]);
        }
    }
}
