//! Stores progress soon after it was told: at most once in a fifth of a second for all attempts together.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_endpoints_core::{limits::BATCH_JOBS, store::Store};
use tokio::sync::Notify;

use super::{
    running::Running,
    settler::{Told, report},
};
use crate::{sync::Mutex, telemetry::events};

/// Between two flushes. Progress must be visible within half a second of a change.
const PACE: Duration = Duration::from_millis(200);

/// Between two tries while the store fails.
const OUTAGE_PACE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Reporter {
    /// Attempts with something to tell.
    changed: Mutex<Vec<Weak<Running>>>,
    wake: Notify,
}

impl Reporter {
    pub(super) fn changed(&self, running: Weak<Running>) {
        self.changed.lock().push(running);
        self.wake.notify_one();
    }

    pub(super) async fn run(&self, store: &dyn Store, limit: Duration) {
        loop {
            self.wake.notified().await;
            let pace = if self.flush(store, limit).await { PACE } else { OUTAGE_PACE };
            tokio::time::sleep(pace).await;
        }
    }

    /// Whether the store took everything.
    async fn flush(&self, store: &dyn Store, limit: Duration) -> bool {
        let changed = std::mem::take(&mut *self.changed.lock());
        let changed: Vec<Arc<Running>> = changed.iter().filter_map(Weak::upgrade).collect();
        let mut stored = true;
        for some in changed.chunks(BATCH_JOBS) {
            let told: Vec<Told<'_>> = some.iter().filter_map(|running| Told::by(running)).collect();
            if let Err(error) = report(store, &told, limit).await {
                stored = false;
                events::store_failed("report", &error);
                told.iter().for_each(|told| told.running.info.progress.announce());
            }
        }
        stored
    }
}
