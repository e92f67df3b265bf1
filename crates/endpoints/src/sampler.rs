//! The store's statistics as all who show them share them: asked for at most once in five seconds, however many want them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use async_endpoints_core::store::{Stats, StatsQuery, Store, StoreError, TypeCutoffs};
use tokio::{runtime::Handle, sync::watch};

use crate::{stats, submit::within};

/// Statistics younger than that are not asked for again.
const FRESH: Duration = Duration::from_secs(5);
/// Statistics older than that are not shown: no value is better than a wrong one.
const STALE: Duration = Duration::from_secs(15);
/// How long a reader waits for an answer of the store, and one that cannot wait asynchronously. Then it takes what there is.
const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) struct Sampler {
    store: Arc<dyn Store>,
    cutoffs: Vec<TypeCutoffs>,
    state: Mutex<State>,
    changed: Condvar,
    /// Where readers outside a runtime have the store asked.
    runtime: OnceLock<Handle>,
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

    fn current(&self) -> Option<Arc<Stats>> {
        let (at, stats) = self.taken.as_ref()?;
        (at.elapsed() < STALE).then(|| stats.clone())
    }
}

impl Sampler {
    pub(crate) fn new(store: Arc<dyn Store>, cutoffs: Vec<TypeCutoffs>) -> Arc<Self> {
        let (state, changed, runtime) = (Mutex::default(), Condvar::new(), OnceLock::new());
        Arc::new(Self { store, cutoffs, state, changed, runtime })
    }

    /// What counts as slow, overdue and stuck.
    pub(crate) fn cutoffs(&self) -> &[TypeCutoffs] {
        &self.cutoffs
    }

    /// Remembers the runtime that this is called in.
    pub(crate) fn enter(&self) {
        if let Ok(handle) = Handle::try_current() {
            self.runtime.get_or_init(|| handle);
        }
    }

    /// The statistics of the last hour, at most five seconds old unless the store does not answer.
    pub(crate) async fn read(self: &Arc<Self>) -> Result<Arc<Stats>, StoreError> {
        self.enter();
        if let Some(mut asking) = self.ask(&Handle::current()) {
            // Closed when the answer is there.
            let answered = async { while asking.changed().await.is_ok() {} };
            if tokio::time::timeout(PATIENCE, answered).await.is_err() {
                self.lock().is_late = true;
            }
        }
        let state = self.lock();
        let why = || state.failed.clone().unwrap_or_else(|| "no statistics yet".to_owned());
        state.current().ok_or_else(|| StoreError::Unavailable(why()))
    }

    /// The same for a reader that cannot wait asynchronously; it waits half a second at most.
    pub(crate) fn read_blocking(self: &Arc<Self>) -> Option<Arc<Stats>> {
        let asking = self.ask(self.runtime.get()?).is_some();
        let state = self.lock();
        let waits = |state: &mut State| asking && state.asking.is_some();
        let waited = self.changed.wait_timeout_while(state, DEADLINE, waits);
        let (mut state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_late |= late.timed_out();
        state.current()
    }

    /// Has the store asked if it is time, and gives what says when it has answered, if it is being asked and nobody waited for
    /// that in vain.
    fn ask(self: &Arc<Self>, runtime: &Handle) -> Option<watch::Receiver<()>> {
        let mut state = self.lock();
        if state.asking.is_none() && state.is_due() {
            let (done, asking) = watch::channel(());
            state.asking = Some(asking);
            state.asked = Some(Instant::now());
            state.is_late = false;
            let sampler = self.clone();
            runtime.spawn(async move {
                let _asking = Asking(&sampler);
                let stats = within(sampler.store.stats(&sampler.query())).await;
                sampler.keep(stats);
                drop(done);
            });
        }
        state.asking.clone().filter(|_| !state.is_late)
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
struct Asking<'a>(&'a Sampler);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().asking = None;
        self.0.changed.notify_all();
    }
}
