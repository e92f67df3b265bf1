//! The store's statistics as all who show them share them: asked for at most once in five seconds, however many want them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::store::{Stats, StatsQuery, Store, StoreError, TypeCutoffs};
use tokio::{runtime::Handle, sync::watch};

use crate::{stats, submit::within};

/// Statistics younger than that are not asked for again.
const FRESH: Duration = Duration::from_secs(5);
/// Gauges older than that have no value: none is better than a wrong one.
const STALE: Duration = Duration::from_secs(15);
/// How long a reader waits for an answer of the store, and one that cannot wait asynchronously.
const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) struct Sampler {
    store: Arc<dyn Store>,
    cutoffs: Vec<TypeCutoffs>,
    state: Mutex<State>,
    changed: Condvar,
    /// Where readers outside a runtime have the store asked.
    runtime: Mutex<Option<Handle>>,
}

#[derive(Default)]
struct State {
    asked: Option<Instant>,
    /// Open while somebody asks.
    asking: Option<watch::Receiver<()>>,
    /// Somebody waited for that answer in vain: nobody else does.
    is_late: bool,
    taken: Option<(Instant, Arc<Stats>)>,
    failed: Option<String>,
}

impl State {
    fn is_due(&self) -> bool {
        self.asked.is_none_or(|at| at.elapsed() >= FRESH)
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<Stats>> {
        let (at, stats) = self.taken.as_ref()?;
        (at.elapsed() < age).then(|| stats.clone())
    }
}

impl Sampler {
    pub(crate) fn new(store: Arc<dyn Store>, cutoffs: Vec<TypeCutoffs>) -> Arc<Self> {
        let (state, changed, runtime) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { store, cutoffs, state, changed, runtime })
    }

    /// What counts as slow, overdue and stuck.
    pub(crate) fn cutoffs(&self) -> &[TypeCutoffs] {
        &self.cutoffs
    }

    /// Remembers the runtime that this is called in.
    pub(crate) fn enter(&self) {
        if let Ok(handle) = Handle::try_current() {
            *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        }
    }

    /// The statistics of the last hour, at most five seconds old.
    pub(crate) async fn read(self: &Arc<Self>) -> Result<Arc<Stats>, StoreError> {
        self.refresh().await;
        let state = self.lock();
        let why = || state.failed.clone().unwrap_or_else(|| "no answer yet".to_owned());
        state.younger_than(FRESH).ok_or_else(|| StoreError::Unavailable(why()))
    }

    /// Has the store asked if it is time, and waits for its answer, for a second at most.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        self.enter();
        if let Some(mut asking) = self.ask(&Handle::current()) {
            // Closed when the answer is there.
            let answered = async { while asking.changed().await.is_ok() {} };
            if tokio::time::timeout(PATIENCE, answered).await.is_err() {
                self.lock().is_late = true;
            }
        }
    }

    /// For gauges, which cannot wait asynchronously: what the store said last, unless that is too old; they wait half a second
    /// at most.
    pub(crate) fn read_blocking(self: &Arc<Self>) -> Option<Arc<Stats>> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let asking = self.ask(&runtime).is_some();
        let state = self.lock();
        if let Some(known) = state.younger_than(STALE) {
            return Some(known);
        }
        let waits = |state: &mut State| asking && state.asking.is_some();
        let waited = self.changed.wait_timeout_while(state, DEADLINE, waits);
        let (mut state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_late |= late.timed_out();
        state.younger_than(STALE)
    }

    /// Has the store asked if it is time, and gives what says when it has answered, if it is being asked and nobody waited for
    /// that in vain.
    fn ask(self: &Arc<Self>, runtime: &Handle) -> Option<watch::Receiver<()>> {
        let (done, asking) = {
            let mut state = self.lock();
            if state.asking.is_some() || !state.is_due() {
                return state.asking.clone().filter(|_| !state.is_late);
            }
            let (done, asking) = watch::channel(());
            state.asking = Some(asking.clone());
            state.asked = Some(Instant::now());
            state.is_late = false;
            (done, asking)
        };
        // Made here: a runtime that has ended drops the task without ever running it.
        let over = Asking(self.clone());
        runtime.spawn(async move {
            let stats = within(over.0.store.stats(&over.0.query())).await;
            over.0.keep(stats);
            drop(over);
            drop(done);
        });
        Some(asking)
    }

    /// Minutes are the store's: until its time is known, all that it has are asked for.
    fn query(&self) -> StatsQuery {
        let known = self.lock().taken.as_ref().map(|(_, stats)| stats.now);
        let since_minute = Some(known.map_or(0, |now| stats::first_minute(now, stats::HOUR)));
        StatsQuery { since_minute, cutoffs: self.cutoffs.clone() }
    }

    fn keep(&self, stats: Result<Stats, StoreError>) {
        let mut state = self.lock();
        match stats {
            Ok(stats) => (state.taken, state.failed) = (Some((Instant::now(), Arc::new(stats))), None),
            Err(error) => state.failed = Some(error.to_string()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of asking, also when the runtime that asks ends first.
struct Asking(Arc<Sampler>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.lock().asking = None;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::MemoryStore;
    use async_endpoints_testkit::FlakyStore;

    use super::*;

    #[tokio::test]
    async fn old_figures_are_for_gauges_for_a_while_and_then_for_nobody() {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let sampler = Sampler::new(store.clone(), Vec::new());
        sampler.read().await.expect("the store answers");
        store.outage(true);
        let age = |by: Duration| {
            let mut state = sampler.lock();
            state.asked = None;
            state.taken.as_mut().expect("it was taken").0 = Instant::now().checked_sub(by).expect("the machine is up");
        };
        age(FRESH);
        let error = sampler.read().await.expect_err("nothing rather than something old");
        assert!(error.to_string().contains("Stats: the call was lost"), "{error}");
        let of_gauges = || sampler.lock().younger_than(STALE);
        assert!(of_gauges().is_some(), "what it said before");
        age(STALE);
        assert!(of_gauges().is_none(), "nothing rather than something wrong");
        store.outage(false);
        age(STALE);
        sampler.read().await.expect("it is back");
    }

    #[test]
    fn a_runtime_that_ended_is_no_end_of_asking() {
        let sampler = Sampler::new(Arc::new(MemoryStore::new()), Vec::new());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let first = runtime();
        first.block_on(async { sampler.enter() });
        drop(first);
        assert!(sampler.read_blocking().is_none(), "nobody can ask");
        assert!(sampler.lock().asking.is_none(), "and nobody seems to");
        sampler.lock().asked = None;
        assert!(runtime().block_on(sampler.read()).is_ok());
        assert!(sampler.read_blocking().is_some());
    }
}
