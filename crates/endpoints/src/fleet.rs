//! What is known of the fleet's workers, asked of the store at most once a second however many want to know.

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use async_endpoints_core::{
    JobName, JobView, Timestamp,
    job::JobStatus,
    store::{LiveWorker, StatsQuery, Store},
};
use serde::Serialize;

use crate::{store_call::within, sync::Mutex};

/// How old the picture may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long the first answer waits for it.
const FIRST: Duration = Duration::from_millis(100);

/// Why a job that is not running waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reason {
    /// Its turn comes.
    Queued,
    /// Its time has not come.
    Delayed,
    /// No live worker takes its type.
    NoWorker,
    /// Every live worker runs as many of its type as it may, though it has free slots.
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
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    beats: Option<Arc<[LiveWorker]>>,
    asked: Option<Instant>,
}

impl Fleet {
    /// Why a job waits; none if it does not.
    pub(crate) async fn waiting(&self, store: &Arc<dyn Store>, job: &JobView) -> Option<Waiting> {
        let now = SystemTime::now().into();
        match job.status {
            JobStatus::Scheduled if job.scheduled_at.is_some_and(|due| due > now) => {
                Some(Waiting { reason: Reason::Delayed, ahead: None, until: job.scheduled_at })
            }
            JobStatus::Queued | JobStatus::Scheduled => {
                let reason = self.beats(store).await.map_or(Reason::Queued, |beats| reason(&beats, &job.name));
                Some(Waiting { reason, ahead: job.ahead, until: None })
            }
            _ => None,
        }
    }

    /// The live workers as last known, asked for anew in the background: no answer waits for the store twice. Only the
    /// first one ever looks for a moment, so that it need not guess.
    async fn beats(&self, store: &Arc<dyn Store>) -> Option<Arc<[LiveWorker]>> {
        let asking = {
            let mut seen = lock(&self.seen);
            let stale = seen.asked.is_none_or(|at| at.elapsed() >= FRESH);
            if stale {
                seen.asked = Some(Instant::now());
            }
            stale.then(|| tokio::spawn(ask(store.clone(), self.seen.clone())))
        };
        if let Some(asking) = asking
            && lock(&self.seen).beats.is_none()
        {
            let _ = tokio::time::timeout(FIRST, asking).await;
        }
        lock(&self.seen).beats.clone()
    }
}

/// If the store does not tell, what was known before stays.
async fn ask(store: Arc<dyn Store>, seen: Arc<Mutex<Seen>>) {
    if let Ok(stats) = within(store.stats(&StatsQuery::default())).await {
        lock(&seen).beats = Some(stats.workers.into());
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock()
}

fn reason(beats: &[LiveWorker], name: &JobName) -> Reason {
    let taking = beats.iter().filter_map(|beat| Some((beat, beat.types.iter().find(|kind| kind.name == *name)?)));
    let limited: Vec<bool> = taking.map(|(beat, kind)| kind.running >= kind.limit && beat.slots.idle > 0).collect();
    match limited.as_slice() {
        [] => Reason::NoWorker,
        all if all.iter().all(|limited| *limited) => Reason::ConcurrencyLimit,
        _ => Reason::Queued,
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::store::{TypeCapacity, WorkerId, WorkerSlots};

    use super::*;

    fn beat(name: &str, running: u32, idle: u32) -> LiveWorker {
        let name = JobName::new(name).expect("a name");
        LiveWorker {
            worker: WorkerId(uuid::Uuid::nil()),
            types: vec![TypeCapacity { name, running, limit: 2 }],
            slots: WorkerSlots { busy: running, idle, leaked: 0 },
            at: Timestamp::default(),
        }
    }

    #[test]
    fn a_job_waits_for_a_worker_for_its_limit_or_for_its_turn() {
        let name = JobName::new("a").expect("a name");
        assert_eq!(reason(&[], &name), Reason::NoWorker);
        assert_eq!(reason(&[beat("b", 0, 8)], &name), Reason::NoWorker);
        assert_eq!(reason(&[beat("a", 2, 6)], &name), Reason::ConcurrencyLimit);
        assert_eq!(reason(&[beat("a", 2, 6), beat("a", 1, 7)], &name), Reason::Queued);
        assert_eq!(reason(&[beat("a", 2, 0)], &name), Reason::Queued);
    }
}
