//! The live workers of the fleet, read from the store at most once a second, and why jobs wait.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_endpoints_core::{
    JobName, JobView, Timestamp,
    job::JobStatus,
    store::{LiveWorker, StatsQuery, Store, StoreError},
};
use serde::Serialize;
use tokio::time::Instant;

use crate::{capacity, store_call::within, sync::Mutex};

/// Maximum age of the list of workers.
const FRESH: Duration = Duration::from_secs(1);
/// How long a caller waits for a new list.
const WAIT: Duration = Duration::from_millis(100);

/// Why a job waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum WaitingReason {
    /// Earlier jobs are ahead, or all slots of the workers are busy.
    Queued,
    /// The due time is in the future.
    Delayed,
    /// An operator paused the job's type.
    Paused,
    /// No live worker has a handler for the job's type.
    NoWorker,
    /// No live worker can take the job, and those with free slots have reached their limit for its type.
    ConcurrencyLimit,
}

/// The state of a job that waits, as its JSON document shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Why it waits.
    pub reason: WaitingReason,
    /// Jobs of its type that start before it, while it is Queued.
    pub ahead: Option<u64>,
    /// When it is due, if it is delayed. When the pause ends by itself, if the type is paused.
    pub until: Option<Timestamp>,
}

#[derive(Clone, Default)]
pub(crate) struct Fleet(Arc<Cache>);

#[derive(Default)]
struct Cache {
    /// The last read of the store. Locked while it runs, so that at most one runs.
    last_read: tokio::sync::Mutex<Option<LastRead>>,
    /// The workers of the last successful read, and the store's time then.
    workers: Mutex<Option<(Timestamp, Arc<[LiveWorker]>)>>,
}

struct LastRead {
    began: Instant,
    result: Result<Arc<[LiveWorker]>, String>,
}

impl LastRead {
    fn is_fresh(&self) -> bool {
        self.began.elapsed() < FRESH
    }
}

impl Fleet {
    /// Returns the live workers, at most 1 s old and in the order of their start. Callers that come during a read share its
    /// result, and so do callers within a second after a failed one.
    pub(crate) async fn workers(&self, store: &Arc<dyn Store>) -> Result<Arc<[LiveWorker]>, StoreError> {
        let mut last_read = self.0.last_read.lock().await;
        if let Some(read) = last_read.as_ref().filter(|read| read.is_fresh()) {
            return read.result.clone().map_err(StoreError::Unavailable);
        }
        let began = Instant::now();
        let result = within(store.stats(&StatsQuery::default())).await.map(|stats| {
            let workers = by_start(stats.workers);
            *self.0.workers.lock() = Some((stats.now, Arc::clone(&workers)));
            workers
        });
        let shared = result.as_ref().map(Arc::clone).map_err(ToString::to_string);
        *last_read = Some(LastRead { began, result: shared });
        result
    }

    /// Returns the workers, and the store's time when they were read. Reads if the list is older than a second. If that takes
    /// long, it goes on in the background, and this returns what was read last.
    pub(crate) async fn last_workers(&self, store: &Arc<dyn Store>) -> Option<(Timestamp, Arc<[LiveWorker]>)> {
        // The lock is taken while a read runs.
        let is_due = self.0.last_read.try_lock().is_ok_and(|read| !read.as_ref().is_some_and(LastRead::is_fresh));
        let refresh = is_due.then(|| {
            let (fleet, store) = (self.clone(), store.clone());
            tokio::spawn(async move { fleet.workers(&store).await })
        });
        if let Some(refresh) = refresh {
            let _ = tokio::time::timeout(WAIT, refresh).await;
        }
        self.0.workers.lock().clone()
    }
}

/// The workers in the order of their start.
pub(crate) fn by_start(mut workers: Vec<LiveWorker>) -> Arc<[LiveWorker]> {
    workers.sort_by_key(|worker| (worker.info.started_at, worker.info.id));
    workers.into()
}

/// Returns why a job waits, or `None` if it does not wait. `workers` are those of the fleet and the store's time when they were
/// read, if they are known. `per_process` is an operator's limit of the job's type.
pub(crate) fn waiting(
    job: &JobView,
    workers: Option<(Timestamp, &[LiveWorker])>,
    lease: Duration,
    per_process: Option<u32>,
) -> Option<Waiting> {
    let now = SystemTime::now().into();
    match job.status {
        JobStatus::Scheduled if job.scheduled_at.is_some_and(|due| due > now) => {
            Some(Waiting { reason: WaitingReason::Delayed, ahead: None, until: job.scheduled_at })
        }
        JobStatus::Queued | JobStatus::Scheduled => {
            let reason = workers.map_or(WaitingReason::Queued, |(now, workers)| {
                reason(capacity::live(workers, now, lease), &job.name, per_process)
            });
            Some(Waiting { reason, ahead: job.ahead, until: None })
        }
        _ => None,
    }
}

fn reason<'a>(live: impl Iterator<Item = &'a LiveWorker>, name: &JobName, per_process: Option<u32>) -> WaitingReason {
    match capacity::taking(live, name, per_process).as_slice() {
        [] => WaitingReason::NoWorker,
        taking if capacity::is_held_by_limit(taking) => WaitingReason::ConcurrencyLimit,
        _ => WaitingReason::Queued,
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
        let reason = |workers: &[LiveWorker], limit| reason(workers.iter(), &name, limit);
        assert_eq!(reason(&[], None), WaitingReason::NoWorker);
        assert_eq!(reason(&[worker("b", 0, 8)], None), WaitingReason::NoWorker);
        assert_eq!(reason(&[worker("a", 2, 6)], None), WaitingReason::ConcurrencyLimit);
        assert_eq!(reason(&[worker("a", 2, 6), worker("a", 1, 7)], None), WaitingReason::Queued);
        assert_eq!(reason(&[worker("a", 2, 0)], None), WaitingReason::Queued);
        assert_eq!(reason(&[worker("a", 2, 6), worker("a", 2, 0)], None), WaitingReason::ConcurrencyLimit);
        assert_eq!(reason(&[worker("a", 1, 7)], Some(1)), WaitingReason::ConcurrencyLimit, "an older heartbeat");
        assert_eq!(reason(&[worker("a", 1, 7)], Some(8)), WaitingReason::Queued);
    }
}
