//! Shared statistics cache. Each reader says how old its statistics may be: at most 5 s, or less.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobName,
    store::{Stats, StatsQuery, Store, StoreError, TypeCutoffs},
};

use crate::{stats, store_call::within, sync::Mutex, types::SharedControls};

/// Maximum age of statistics that [`StatsCache::refresh`] returns without a store call.
const FRESH: Duration = Duration::from_secs(5);
/// Maximum age of statistics that [`StatsCache::latest`] returns.
const STALE: Duration = Duration::from_secs(15);

/// Thresholds of a job type that is not declared in this process.
type UndeclaredCutoffs = Box<dyn Fn(&JobName) -> TypeCutoffs + Send + Sync>;

pub(crate) struct StatsCache {
    store: Arc<dyn Store>,
    controls: Arc<SharedControls>,
    cutoffs: Vec<TypeCutoffs>,
    undeclared: UndeclaredCutoffs,
    /// The last store call. Locked for its whole duration, so that at most one runs.
    last_call: tokio::sync::Mutex<Option<Call>>,
    /// The statistics of the last successful call, and the time when it began.
    latest: Mutex<Option<(Instant, Arc<Stats>)>>,
}

struct Call {
    began: Instant,
    result: Result<Arc<Stats>, String>,
}

impl StatsCache {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        controls: Arc<SharedControls>,
        cutoffs: Vec<TypeCutoffs>,
        undeclared: impl Fn(&JobName) -> TypeCutoffs + Send + Sync + 'static,
    ) -> Arc<Self> {
        let undeclared = Box::new(undeclared);
        let (last_call, latest) = (tokio::sync::Mutex::default(), Mutex::default());
        Arc::new(Self { store, controls, cutoffs, undeclared, last_call, latest })
    }

    /// Thresholds for slow, overdue and stuck jobs of the declared types.
    pub(crate) fn cutoffs(&self) -> &[TypeCutoffs] {
        &self.cutoffs
    }

    /// Returns statistics of the last hour that are at most 5 s old.
    ///
    /// Calls the store unless the last call began less than 5 s ago; that call's error is returned as well. Callers that
    /// come during a call share its result. The call continues when this future is dropped.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<Arc<Stats>, StoreError> {
        self.at_most(FRESH).await
    }

    /// Returns statistics of the last hour that are at most `age` old, like [`refresh`](Self::refresh).
    pub(crate) async fn at_most(self: &Arc<Self>, age: Duration) -> Result<Arc<Stats>, StoreError> {
        let cache = self.clone();
        let refreshed = tokio::spawn(async move { cache.call_if_due(age).await }).await;
        refreshed.unwrap_or_else(|error| Err(error.to_string())).map_err(StoreError::Unavailable)
    }

    /// Reads statistics of this moment with the minutes from `since_minute` on, or without minutes. Returns them with the
    /// thresholds of all types in the store. Takes two calls if the store has undeclared types.
    pub(crate) async fn current(&self, since_minute: Option<i64>) -> Result<(Stats, Vec<TypeCutoffs>), StoreError> {
        let mut cutoffs = self.cutoffs.clone();
        loop {
            let query = StatsQuery { since_minute, cutoffs };
            let stats = self.read(&query).await?;
            cutoffs = query.cutoffs;
            let known = cutoffs.len();
            self.add_undeclared(&mut cutoffs, &stats);
            if cutoffs.len() == known {
                return Ok((stats, cutoffs));
            }
        }
    }

    /// Returns the latest statistics without a store call; none if they are older than 15 s.
    pub(crate) fn latest(&self) -> Option<Arc<Stats>> {
        let latest = self.latest.lock();
        let (at, stats) = latest.as_ref()?;
        (at.elapsed() < STALE).then(|| stats.clone())
    }

    /// Refreshes the cache every 5 s, for readers that use [`latest`](Self::latest) alone.
    pub(crate) async fn keep_fresh(self: &Arc<Self>) {
        loop {
            // Readers see a failure as a missing value.
            let _ = self.refresh().await;
            tokio::time::sleep(FRESH).await;
        }
    }

    /// Reads statistics. The waiting jobs of a paused type never count as stale: an operator stopped them.
    async fn read(&self, query: &StatsQuery) -> Result<Stats, StoreError> {
        let mut stats = within(self.store.stats(query)).await?;
        let controls = self.controls.soon().await;
        for of_type in stats.types.iter_mut().filter(|of_type| controls.pause(&of_type.name).is_some()) {
            of_type.stale = 0;
        }
        Ok(stats)
    }

    async fn call_if_due(&self, age: Duration) -> Result<Arc<Stats>, String> {
        let mut last_call = self.last_call.lock().await;
        if let Some(call) = last_call.as_ref().filter(|call| call.began.elapsed() < age) {
            return call.result.clone();
        }
        let began = Instant::now();
        let result = self.read(&self.query()).await.map(Arc::new).map_err(message);
        if let Ok(stats) = &result {
            *self.latest.lock() = Some((began, stats.clone()));
        }
        *last_call = Some(Call { began, result: result.clone() });
        result
    }

    /// The window is counted in the store's minutes, and undeclared types are known to the store alone. The first call
    /// therefore queries all minutes and only the declared types.
    fn query(&self) -> StatsQuery {
        let known = self.latest.lock().as_ref().map(|(_, stats)| stats.clone());
        let since_minute = Some(known.as_ref().map_or(0, |known| stats::first_minute(known.now, stats::HOUR)));
        let mut cutoffs = self.cutoffs.clone();
        if let Some(known) = known {
            self.add_undeclared(&mut cutoffs, &known);
        }
        StatsQuery { since_minute, cutoffs }
    }

    /// Adds the thresholds of types that have none yet.
    fn add_undeclared(&self, cutoffs: &mut Vec<TypeCutoffs>, stats: &Stats) {
        for of_type in &stats.types {
            if !cutoffs.iter().any(|known| known.name == of_type.name) {
                cutoffs.push((self.undeclared)(&of_type.name));
            }
        }
    }
}

/// The text of an error that callers get as [`StoreError::Unavailable`].
pub(crate) fn message(error: StoreError) -> String {
    match error {
        StoreError::Unavailable(reason) => reason,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{JobStore, MemoryStore, SharedState, Timestamp};
    use async_endpoints_testkit::{FlakyStore, ManualClock, jobs::job};

    use super::*;
    use crate::types::{Controls, TypePause};

    fn cache(store: Arc<dyn Store>) -> Arc<StatsCache> {
        let undeclared = |name: &JobName| TypeCutoffs {
            name: name.clone(),
            slow_after: Duration::ZERO,
            overdue_after: Duration::ZERO,
            stuck_after: Duration::ZERO,
        };
        StatsCache::new(store.clone(), SharedControls::new(store), Vec::new(), undeclared)
    }

    /// Makes the last call, and the statistics that the cache has, older.
    async fn age(cache: &StatsCache, by: Duration) {
        let older = |at: &mut Instant| *at = at.checked_sub(by).expect("the machine runs longer than that");
        older(&mut cache.last_call.lock().await.as_mut().expect("a call").began);
        older(&mut cache.latest.lock().as_mut().expect("statistics").0);
    }

    #[tokio::test]
    async fn outage_leaves_latest_until_stale() {
        let store = Arc::new(FlakyStore::new(Arc::new(MemoryStore::new())));
        let cache = cache(store.clone());
        cache.refresh().await.expect("the store answers");
        store.outage(true);
        cache.refresh().await.expect("fresh statistics need no call");
        age(&cache, Duration::from_secs(2)).await;
        cache.refresh().await.expect("fresh statistics need no call");
        cache.at_most(Duration::from_secs(2)).await.expect_err("older than 2 s");
        age(&cache, FRESH).await;
        let error = cache.refresh().await.expect_err("the store is unavailable");
        assert!(error.to_string().contains("stats"), "{error}");
        assert!(cache.latest().is_some(), "younger than 15 s");
        age(&cache, STALE).await;
        assert!(cache.latest().is_none(), "older than 15 s");
        store.outage(false);
        cache.refresh().await.expect("the store is back");
    }

    #[tokio::test]
    async fn undeclared_types_get_cutoffs() {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let cache = cache(store.clone());
        store.insert(job("Forgotten", Duration::from_secs(60))).await.expect("memory answers");
        clock.advance(Duration::from_secs(1));
        let mut stale = Vec::new();
        for _ in 0..2 {
            stale.push(cache.refresh().await.expect("memory answers").types[0].stale);
            age(&cache, FRESH).await;
        }
        assert_eq!(stale, [0, 1], "counted once the type is known");
    }

    #[tokio::test]
    async fn waiting_jobs_of_a_paused_type_are_not_stale() {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let cache = cache(store.clone());
        store.insert(job("Printed", Duration::from_secs(60))).await.expect("memory answers");
        clock.advance(Duration::from_secs(1));
        let stale = async || cache.current(None).await.expect("memory answers").0.types[0].stale;
        assert_eq!(stale().await, 1);
        let pause = TypePause { reason: "no paper".to_owned(), since: Timestamp::from_micros(0), until: None };
        let name = JobName::new("Printed").expect("a name");
        let mut controls = Controls::default();
        controls.change(&name, |control| control.pause = Some(pause));
        let bytes = serde_json::to_vec(&controls).expect("JSON");
        store.put_document("types", None, bytes.into(), None).await.expect("memory answers");
        cache.controls.read().await.expect("memory answers");
        assert_eq!(stale().await, 0);
    }

    #[test]
    fn runtime_end_during_call_ends_the_call() {
        let hanging = FlakyStore::new(Arc::new(MemoryStore::new())).delays(Duration::from_secs(3600));
        let cache = cache(Arc::new(hanging));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let refresh = tokio::time::timeout(Duration::from_millis(10), cache.refresh());
            assert!(refresh.await.is_err(), "the call is in flight");
        });
        assert!(cache.last_call.try_lock().is_err(), "a dropped caller leaves the call running");
        drop(runtime);
        assert!(cache.last_call.try_lock().is_ok());
    }
}
