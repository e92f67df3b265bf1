//! Why jobs wait: derived from the live workers, which are read from the store at most once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_endpoints_core::{
    JobName, JobView, Timestamp,
    job::JobStatus,
    store::{LiveWorker, StatsQuery, Store},
};
use serde::Serialize;

use crate::{store_call::within, sync::Mutex};

/// Maximum age of the list of workers.
const FRESH: Duration = Duration::from_secs(1);
/// How long the first caller waits for the list.
const FIRST: Duration = Duration::from_millis(100);

/// The reason why a job waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reason {
    /// Earlier jobs are ahead.
    Queued,
    /// The due time is in the future.
    Delayed,
    /// No live worker has a handler for the job's type.
    NoWorker,
    /// Every live worker with a handler has free slots, but has reached its limit for the job's type.
    ConcurrencyLimit,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) reason: Reason,
    pub(crate) ahead: Option<u64>,
    pub(crate) until: Option<Timestamp>,
}

#[derive(Default)]
pub(crate) struct Fleet {
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    workers: Option<Arc<[LiveWorker]>>,
    /// When the last read of the store began.
    read_at: Option<Instant>,
}

impl Fleet {
    /// Returns why a job waits, or `None` if it does not wait.
    pub(crate) async fn waiting(&self, store: &Arc<dyn Store>, job: &JobView) -> Option<Waiting> {
        let now = SystemTime::now().into();
        match job.status {
            JobStatus::Scheduled if job.scheduled_at.is_some_and(|due| due > now) => {
                Some(Waiting { reason: Reason::Delayed, ahead: None, until: job.scheduled_at })
            }
            JobStatus::Queued | JobStatus::Scheduled => {
                let reason = self.workers(store).await.map_or(Reason::Queued, |workers| reason(&workers, &job.name));
                Some(Waiting { reason, ahead: job.ahead, until: None })
            }
            _ => None,
        }
    }

    /// Returns the live workers as last read, and refreshes the list in the background. Only the first call waits for the
    /// store, for a short time.
    async fn workers(&self, store: &Arc<dyn Store>) -> Option<Arc<[LiveWorker]>> {
        let refresh = {
            let mut cache = self.cache.lock();
            let is_stale = cache.read_at.is_none_or(|at| at.elapsed() >= FRESH);
            if is_stale {
                cache.read_at = Some(Instant::now());
            }
            is_stale.then(|| tokio::spawn(refresh(store.clone(), self.cache.clone())))
        };
        if let Some(refresh) = refresh
            && self.cache.lock().workers.is_none()
        {
            let _ = tokio::time::timeout(FIRST, refresh).await;
        }
        self.cache.lock().workers.clone()
    }
}

/// Reads the live workers. A failed read leaves the list as it is.
async fn refresh(store: Arc<dyn Store>, cache: Arc<Mutex<Cache>>) {
    if let Ok(stats) = within(store.stats(&StatsQuery::default())).await {
        cache.lock().workers = Some(stats.workers.into());
    }
}

fn reason(workers: &[LiveWorker], name: &JobName) -> Reason {
    let capacities = workers
        .iter()
        .filter_map(|live| Some((&live.info, live.info.types.iter().find(|of_type| of_type.name == *name)?)));
    let at_limit: Vec<bool> =
        capacities.map(|(worker, of_type)| of_type.running >= of_type.limit && worker.slots.idle > 0).collect();
    match at_limit.as_slice() {
        [] => Reason::NoWorker,
        all if all.iter().all(|at_limit| *at_limit) => Reason::ConcurrencyLimit,
        _ => Reason::Queued,
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::store::{TypeCapacity, WorkerId, WorkerInfo, WorkerSlots};
    use async_endpoints_testkit::jobs;

    use super::*;

    fn worker(name: &str, running: u32, idle: u32) -> LiveWorker {
        let name = JobName::new(name).expect("a valid name");
        let info = WorkerInfo {
            types: vec![TypeCapacity { name, running, limit: 2 }],
            slots: WorkerSlots { busy: running, idle, leaked: 0 },
            ..jobs::worker(WorkerId(uuid::Uuid::nil()))
        };
        LiveWorker { info, last_heartbeat_at: Timestamp::default() }
    }

    #[test]
    fn reason_depends_on_free_capacity() {
        let name = JobName::new("a").expect("a valid name");
        assert_eq!(reason(&[], &name), Reason::NoWorker);
        assert_eq!(reason(&[worker("b", 0, 8)], &name), Reason::NoWorker);
        assert_eq!(reason(&[worker("a", 2, 6)], &name), Reason::ConcurrencyLimit);
        assert_eq!(reason(&[worker("a", 2, 6), worker("a", 1, 7)], &name), Reason::Queued);
        assert_eq!(reason(&[worker("a", 2, 0)], &name), Reason::Queued);
    }
}
