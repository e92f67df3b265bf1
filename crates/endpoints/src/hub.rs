//! The one listener to a store's hints in this process, and their local fan-out: claimers wake for work, waiters
//! for their job. Waiting logic is written once, here; hints may be lost, so waiters also look by themselves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName,
    store::{Hint, Store},
};
use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::telemetry::events;

#[derive(Default)]
pub(crate) struct Hub {
    watched: Mutex<HashMap<JobId, Watched>>,
}

#[derive(Default)]
struct Watched {
    watchers: usize,
    changed: Arc<Notify>,
}

/// Somebody's interest in one job, until it is dropped.
pub(crate) struct Watch {
    hub: Arc<Hub>,
    id: JobId,
    pub(crate) changed: Arc<Notify>,
}

impl Hub {
    /// Passes hints on for ever.
    pub(crate) async fn run(&self, store: &dyn Store, work: impl Fn(Option<&JobName>)) {
        loop {
            let mut hints = store.hints();
            while let Some(hint) = hints.next().await {
                match hint {
                    Hint::Work(name) => work(Some(&name)),
                    Hint::Jobs(ids) => self.changed(&ids),
                    Hint::Lagged => {
                        work(None);
                        self.all_changed();
                    }
                }
            }
            events::hints_ended();
            tokio::time::sleep(Duration::from_secs(1)).await;
            work(None);
            self.all_changed();
        }
    }

    pub(crate) fn watch(self: &Arc<Self>, id: JobId) -> Watch {
        let mut watched = self.watched();
        let entry = watched.entry(id).or_default();
        entry.watchers += 1;
        Watch { hub: self.clone(), id, changed: entry.changed.clone() }
    }

    fn changed(&self, ids: &[JobId]) {
        let watched = self.watched();
        if !watched.is_empty() {
            ids.iter().filter_map(|id| watched.get(id)).for_each(|watched| watched.changed.notify_waiters());
        }
    }

    fn all_changed(&self) {
        self.watched().values().for_each(|watched| watched.changed.notify_waiters());
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<JobId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.hub.watched();
        if let Some(entry) = watched.get_mut(&self.id) {
            entry.watchers -= 1;
            if entry.watchers == 0 {
                watched.remove(&self.id);
            }
        }
    }
}
