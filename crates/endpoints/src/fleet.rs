//! What is known of the fleet's workers, asked of the store at most once a second however many want to know.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobName, JobView, Timestamp,
    job::JobStatus,
    store::{LiveBeat, StatsQuery, Store},
};
use serde::Serialize;

use crate::submit::within;

/// How old the picture may be.
const FRESH: Duration = Duration::from_secs(1);

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
    seen: RwLock<Option<(Instant, Arc<[LiveBeat]>)>>,
    asking: tokio::sync::Mutex<()>,
}

impl Fleet {
    /// Why a job waits; none if it does not.
    pub(crate) async fn waiting(&self, store: &dyn Store, job: &JobView) -> Option<Waiting> {
        match job.status {
            JobStatus::Scheduled => Some(Waiting { reason: Reason::Delayed, ahead: None, until: job.scheduled_at }),
            JobStatus::Queued => {
                let reason = reason(&self.beats(store).await, &job.name);
                Some(Waiting { reason, ahead: job.ahead, until: None })
            }
            _ => None,
        }
    }

    /// The live workers. If the store does not tell, what was last known of them.
    async fn beats(&self, store: &dyn Store) -> Arc<[LiveBeat]> {
        if let Some(beats) = self.known(FRESH) {
            return beats;
        }
        // One asks, the others wait for its answer.
        let _asking = self.asking.lock().await;
        if let Some(beats) = self.known(FRESH) {
            return beats;
        }
        match within(store.stats(&StatsQuery::default())).await {
            Ok(stats) => {
                let beats: Arc<[LiveBeat]> = stats.beats.into();
                *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), beats.clone()));
                beats
            }
            Err(_) => self.known(Duration::MAX).unwrap_or_default(),
        }
    }

    fn known(&self, age: Duration) -> Option<Arc<[LiveBeat]>> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, beats)| beats.clone())
    }
}

fn reason(beats: &[LiveBeat], name: &JobName) -> Reason {
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
    use async_endpoints_core::store::{BeatType, Slots, WorkerId};

    use super::*;

    fn beat(name: &str, running: u32, idle: u32) -> LiveBeat {
        let name = JobName::new(name).expect("a name");
        LiveBeat {
            worker: WorkerId(uuid::Uuid::nil()),
            types: vec![BeatType { name, running, limit: 2 }],
            slots: Slots { busy: running, idle, leaked: 0 },
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
