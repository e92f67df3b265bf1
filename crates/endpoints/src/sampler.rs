//! The store's statistics as all who show them share them: asked for at most once in five seconds, however many want them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobName,
    store::{Stats, StatsQuery, Store, StoreError, TypeCutoffs},
};
use tokio::{runtime::Handle, sync::watch};

use crate::{stats, store_call::within};

/// Statistics younger than that are not asked for again.
const FRESH: Duration = Duration::from_secs(5);
/// Gauges older than that have no value: none is better than a wrong one.
const STALE: Duration = Duration::from_secs(15);
/// How long a scrape waits for an answer of the store, and a gauge that is read otherwise.
const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(500);

/// What counts as slow, overdue and stuck of a type that is not declared here.
type Others = Box<dyn Fn(&JobName) -> TypeCutoffs + Send + Sync>;

pub(crate) struct Sampler {
    store: Arc<dyn Store>,
    cutoffs: Vec<TypeCutoffs>,
    /// For job types that only other processes declare, or none: they get stuck as well.
    others: Others,
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
    /// A scrape or a gauge waited for that answer in vain: no other does.
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
    pub(crate) fn new(
        store: Arc<dyn Store>,
        cutoffs: Vec<TypeCutoffs>,
        others: impl Fn(&JobName) -> TypeCutoffs + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (state, changed, runtime) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { store, cutoffs, others: Box::new(others), state, changed, runtime })
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
        self.enter();
        if let Some(asking) = self.ask(&Handle::current()) {
            // Ends, as the call does.
            answered(asking).await;
        }
        let state = self.lock();
        let why = || state.failed.clone().unwrap_or_else(|| "no answer yet".to_owned());
        state.younger_than(FRESH).ok_or_else(|| StoreError::Unavailable(why()))
    }

    /// Has the store asked if it is time, and waits for its answer, for a second at most: a scrape tells the rest all the same.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        self.enter();
        let asking = self.ask(&Handle::current()).filter(|_| !self.lock().is_late);
        if let Some(asking) = asking
            && tokio::time::timeout(PATIENCE, answered(asking)).await.is_err()
        {
            self.lock().is_late = true;
        }
    }

    /// For gauges, which cannot wait asynchronously: they wait half a second at most, and then tell what the store said before,
    /// unless that is too old.
    pub(crate) fn read_blocking(self: &Arc<Self>) -> Option<Arc<Stats>> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let asking = self.ask(&runtime).is_some();
        let state = self.lock();
        if let Some(fresh) = state.younger_than(FRESH) {
            return Some(fresh);
        }
        let waits = |state: &mut State| asking && !state.is_late && state.asking.is_some();
        let waited = self.changed.wait_timeout_while(state, DEADLINE, waits);
        let (mut state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_late |= late.timed_out();
        state.younger_than(STALE)
    }

    /// Has the store asked if it is time, and gives what says when it has answered, if it is being asked.
    fn ask(self: &Arc<Self>, runtime: &Handle) -> Option<watch::Receiver<()>> {
        let (done, asking) = {
            let mut state = self.lock();
            if state.asking.is_some() || !state.is_due() {
                return state.asking.clone();
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

    /// Minutes are the store's, and so are the types that are not declared here: until they are known, all minutes are asked for.
    fn query(&self) -> StatsQuery {
        let known = self.lock().taken.as_ref().map(|(_, stats)| stats.clone());
        let since_minute = Some(known.as_ref().map_or(0, |known| stats::first_minute(known.now, stats::HOUR)));
        let mut cutoffs = self.cutoffs.clone();
        for of_type in known.iter().flat_map(|known| &known.types) {
            if !self.cutoffs.iter().any(|declared| declared.name == of_type.name) {
                cutoffs.push((self.others)(&of_type.name));
            }
        }
        StatsQuery { since_minute, cutoffs }
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

/// Ends when the answer is there: then nobody holds the other end any more.
async fn answered(mut asking: watch::Receiver<()>) {
    while asking.changed().await.is_ok() {}
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
    use async_endpoints_core::{JobStore, MemoryStore};
    use async_endpoints_testkit::{FlakyStore, ManualClock, jobs::job};

    use super::*;

    fn sampler(store: Arc<dyn Store>) -> Arc<Sampler> {
        let others = |name: &JobName| TypeCutoffs {
            name: name.clone(),
            slow_after: Duration::ZERO,
            overdue_after: Duration::ZERO,
            stuck_after: Duration::ZERO,
        };
        Sampler::new(store, Vec::new(), others)
    }

    #[tokio::test]
    async fn old_figures_are_for_gauges_for_a_while_and_then_for_nobody() {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let sampler = sampler(store.clone());
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

    #[tokio::test]
    async fn jobs_of_types_that_are_not_declared_get_stuck_as_well() {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let sampler = sampler(store.clone());
        store.insert(job("Forgotten", Duration::from_secs(60))).await.expect("it is stored");
        clock.advance(Duration::from_secs(1));
        let mut stale = Vec::new();
        for _ in 0..2 {
            sampler.lock().asked = None;
            stale.push(sampler.read().await.expect("the store answers").types[0].stale);
        }
        assert_eq!(stale, [0, 1], "once the type is known");
    }

    #[test]
    fn a_runtime_that_ended_is_no_end_of_asking() {
        let sampler = sampler(Arc::new(MemoryStore::new()));
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
