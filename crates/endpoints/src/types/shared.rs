//! The pauses and limits as this process last read them from the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobName, StoreError, Timestamp,
    store::{DocVersion, StatsQuery, Store},
};

use super::controls::{Controls, TYPES, TypeControl};
use crate::{shared_document, store_call::within, sync::Mutex};

/// Time between two reads. A change applies in every process within 2 s, the read itself included.
const INTERVAL: Duration = Duration::from_millis(1500);
/// Maximum age of what [`SharedControls::current`] returns without a read.
const FRESH: Duration = Duration::from_secs(2);
/// How long [`SharedControls::soon`] waits for the store.
const SOON: Duration = Duration::from_millis(100);

/// The pauses and limits of a fleet, read once in 1.5 s.
pub(crate) struct SharedControls {
    store: Arc<dyn Store>,
    /// The document of the last read. Locked during reads, so that an old read never replaces a newer one.
    document: tokio::sync::Mutex<StoredControls>,
    /// The last successful read.
    latest: Mutex<Option<Latest>>,
}

#[derive(Default)]
struct StoredControls {
    version: Option<DocVersion>,
    controls: Controls,
}

#[derive(Clone)]
struct Latest {
    read_at: Instant,
    /// What counted then, without pauses that had ended.
    controls: Arc<Controls>,
}

impl SharedControls {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, document: tokio::sync::Mutex::default(), latest: Mutex::default() })
    }

    /// Returns what was read last, without a store call. Before the first read, no type is paused or limited.
    pub(crate) fn latest(&self) -> Arc<Controls> {
        self.latest.lock().as_ref().map(|latest| latest.controls.clone()).unwrap_or_default()
    }

    /// Returns what was read last, however old. Only before the first read it reads: a process that has just started must not
    /// run jobs of a paused type.
    pub(crate) async fn known(&self) -> Result<Arc<Controls>, StoreError> {
        let latest = self.latest.lock().clone();
        match latest {
            Some(latest) => Ok(latest.controls),
            None => self.current().await,
        }
    }

    /// Returns what was read at most 2 s ago, else reads. While the store fails, the last read counts.
    ///
    /// Processes that serve or run jobs read periodically, so this makes no store call there.
    async fn current(&self) -> Result<Arc<Controls>, StoreError> {
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let read = within(async {
            let mut document = self.document.lock().await;
            match self.fresh() {
                Some(fresh) => Ok(fresh),
                None => self.read_into(&mut document).await,
            }
        });
        let read = read.await;
        let latest = self.latest.lock().as_ref().map(|latest| latest.controls.clone());
        read.or_else(|error| latest.ok_or(error))
    }

    /// Returns what [`current`](Self::current) returns, or after a short time what was read last.
    pub(crate) async fn soon(&self) -> Arc<Controls> {
        let current = tokio::time::timeout(SOON, self.current()).await;
        current.ok().and_then(Result::ok).unwrap_or_else(|| self.latest())
    }

    /// Reads now. If the document cannot be decoded, that is an error, and the last one counts.
    pub(crate) async fn read(&self) -> Result<Arc<Controls>, StoreError> {
        within(async { self.read_into(&mut *self.document.lock().await).await }).await
    }

    /// Reads the document, and the store's time if a pause ends by itself.
    async fn read_into(&self, last: &mut StoredControls) -> Result<Arc<Controls>, StoreError> {
        let read_at = Instant::now();
        let mut unreadable = None;
        if let Some(stored) = self.store.document(TYPES).await?
            && last.version != Some(stored.version)
        {
            match Controls::decode(Some(&stored.bytes)) {
                Ok(controls) => *last = StoredControls { version: Some(stored.version), controls },
                Err(error) => unreadable = Some(error),
            }
        }
        let mut controls = last.controls.clone();
        if controls.has_ends() {
            controls = controls.at(self.store.stats(&StatsQuery::default()).await?.now);
        }
        let controls = Arc::new(controls);
        *self.latest.lock() = Some(Latest { read_at, controls: controls.clone() });
        unreadable.map_or(Ok(controls), Err)
    }

    fn fresh(&self) -> Option<Arc<Controls>> {
        let latest = self.latest.lock().clone()?;
        (latest.read_at.elapsed() < FRESH).then_some(latest.controls)
    }

    /// Reads periodically. Calls `on_change` after each change, and `on_error` for the first of failed reads in a row.
    pub(crate) async fn follow(&self, on_change: impl Fn(), on_error: impl Fn(&StoreError)) {
        let mut has_failed = false;
        loop {
            let before = self.latest();
            let read = self.read().await;
            if self.latest() != before {
                on_change();
            }
            if let Err(error) = &read
                && !has_failed
            {
                on_error(error);
            }
            has_failed = read.is_err();
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Changes the stored decisions about one type, and returns them. `now` is the store's time.
    pub(super) async fn change(
        &self,
        name: &JobName,
        now: Timestamp,
        change: impl Fn(&mut TypeControl),
    ) -> Result<Arc<Controls>, StoreError> {
        let changed = shared_document::update(&*self.store, TYPES, Controls::decode, |controls| {
            let before = controls.clone();
            *controls = std::mem::take(controls).at(now);
            controls.change(name, &change);
            (*controls != before).then_some(())
        });
        within(changed).await?;
        self.read().await
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{MemoryStore, SharedState as _};
    use async_endpoints_testkit::{FlakyStore, ManualClock};

    use super::*;
    use crate::types::TypePause;

    fn name() -> JobName {
        JobName::new("Print").expect("a valid name")
    }

    fn pause(control: &mut TypeControl, until: Option<Timestamp>) {
        control.pause = Some(TypePause { reason: "no paper".to_owned(), since: Timestamp::default(), until });
    }

    fn is_paused(controls: &Controls) -> bool {
        controls.pause(&name()).is_some()
    }

    #[tokio::test]
    async fn change_is_read_by_another_process() {
        let store = Arc::new(MemoryStore::new());
        let [one, other] = [0, 1].map(|_| SharedControls::new(store.clone()));
        assert!(!is_paused(&other.known().await.expect("memory answers")));
        one.change(&name(), Timestamp::default(), |control| pause(control, None)).await.expect("memory answers");
        assert!(is_paused(&one.latest()), "at once in the process that changed it");
        assert!(!is_paused(&other.known().await.expect("memory answers")), "not read again");
        assert!(is_paused(&other.read().await.expect("memory answers")));
    }

    #[tokio::test]
    async fn pause_ends_at_its_time_by_the_stores_clock() {
        let clock = ManualClock::new();
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let shared = SharedControls::new(store);
        let now = || async_endpoints_core::Clock::now(&clock);
        let until = now() + Duration::from_secs(60);
        shared.change(&name(), now(), |control| pause(control, Some(until))).await.expect("memory answers");
        clock.advance(Duration::from_secs(59));
        assert!(is_paused(&shared.read().await.expect("memory answers")));
        clock.advance(Duration::from_secs(1));
        assert!(!is_paused(&shared.read().await.expect("memory answers")));
        // The next change removes the pause from the document, which then has no end to wait for.
        shared.change(&name(), now(), |control| control.per_process = Some(1)).await.expect("memory answers");
        assert_eq!(shared.latest().of(&name()), TypeControl { pause: None, per_process: Some(1) });
    }

    #[tokio::test]
    async fn last_known_state_stays_when_the_document_cannot_be_read() {
        let memory = Arc::new(MemoryStore::new());
        let flaky = Arc::new(FlakyStore::new(memory.clone()));
        let shared = SharedControls::new(flaky.clone());
        shared.change(&name(), Timestamp::default(), |control| pause(control, None)).await.expect("memory answers");
        flaky.outage(true);
        assert!(shared.read().await.is_err() && is_paused(&shared.latest()));
        flaky.outage(false);
        let stored = memory.document(TYPES).await.expect("memory answers").expect("a document");
        memory.put_document(TYPES, Some(stored.version), r#"{"format":2}"#.into(), None).await.expect("memory answers");
        assert!(shared.read().await.is_err() && is_paused(&shared.latest()));
        let restarted = SharedControls::new(memory.clone());
        assert!(!is_paused(&restarted.known().await.expect("claims go on without pauses")));
        let newer = shared.change(&name(), Timestamp::default(), |control| control.pause = None).await;
        assert!(newer.expect_err("a newer document is not overwritten").to_string().contains("format 2"));
    }

    #[tokio::test]
    async fn concurrent_changes_are_all_kept() {
        let store = Arc::new(MemoryStore::new());
        let processes = [0, 1, 2].map(|_| SharedControls::new(store.clone()));
        let names: Vec<JobName> = (0..9).map(|n| JobName::new(&format!("Type{n}")).expect("a valid name")).collect();
        let changes = names.iter().enumerate().map(|(n, name)| {
            processes[n % 3].change(name, Timestamp::default(), |control| control.per_process = Some(1))
        });
        futures_util::future::try_join_all(changes).await.expect("memory answers");
        let controls = SharedControls::new(store).known().await.expect("memory answers");
        assert_eq!(controls.names().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    }
}
