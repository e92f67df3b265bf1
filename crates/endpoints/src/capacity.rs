//! Which workers are silent, and what the other ones can take of a job type.

use std::time::Duration;

use async_endpoints_core::{
    JobName, Timestamp,
    store::{LiveWorker, Stats},
};

/// Least time without a heartbeat after which a worker is silent. Heartbeats come at least once a second.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Whether a worker has sent no heartbeat for so long, by the store's clock, that it is taken for dead or cut off. A call that
/// records a heartbeat may take half a lease.
pub(crate) fn is_silent(last_heartbeat: Timestamp, now: Timestamp, lease: Duration) -> bool {
    now.since(last_heartbeat) > SILENT_AFTER.max(lease / 2)
}

/// The workers that are not silent at `now`.
pub(crate) fn live(workers: &[LiveWorker], now: Timestamp, lease: Duration) -> impl Iterator<Item = &LiveWorker> {
    workers.iter().filter(move |worker| !is_silent(worker.last_heartbeat_at, now, lease))
}

/// Statistics without the silent workers.
pub(crate) fn without_silent(mut stats: Stats, lease: Duration) -> Stats {
    stats.workers.retain(|worker| !is_silent(worker.last_heartbeat_at, stats.now, lease));
    stats
}

/// The slots of a worker for one type.
pub(crate) struct Capacity<'a> {
    pub(crate) worker: &'a LiveWorker,
    /// Attempts of the type that run.
    pub(crate) running: u32,
    /// How many of them may run.
    pub(crate) allowed: u32,
}

impl Capacity<'_> {
    /// Slots that a job of the type can take now.
    pub(crate) fn free(&self) -> u32 {
        self.worker.info.slots.idle.min(self.allowed.saturating_sub(self.running))
    }

    /// Maximum number of attempts of the type. Leaked slots run none.
    pub(crate) fn limit(&self) -> u32 {
        self.allowed.min(self.slots())
    }

    /// Slots for attempts of all types.
    pub(crate) fn slots(&self) -> u32 {
        self.worker.info.slots.busy + self.worker.info.slots.idle
    }

    /// Whether the worker has free slots, and runs as many jobs of the type as it may.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.worker.info.slots.idle > 0 && self.running >= self.allowed
    }
}

/// The workers with a handler for a type. `per_process` is an operator's limit: a heartbeat may be older than it.
pub(crate) fn taking<'a>(
    workers: impl Iterator<Item = &'a LiveWorker>,
    name: &JobName,
    per_process: Option<u32>,
) -> Vec<Capacity<'a>> {
    let capacity = |worker: &'a LiveWorker| {
        let of_type = worker.info.types.iter().find(|of_type| of_type.name == *name)?;
        let allowed = per_process.map_or(of_type.limit, |limit| limit.min(of_type.limit));
        Some(Capacity { worker, running: of_type.running, allowed })
    };
    workers.filter_map(capacity).collect()
}

/// Whether the limit of the type keeps its jobs from free slots.
pub(crate) fn is_held_by_limit(taking: &[Capacity<'_>]) -> bool {
    taking.iter().all(|capacity| capacity.free() == 0) && taking.iter().any(Capacity::is_at_limit)
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::store::{WorkerId, WorkerInfo};
    use async_endpoints_testkit::jobs;

    use super::*;

    #[test]
    fn worker_is_silent_after_three_seconds_or_half_a_lease() {
        for (lease, silence, expected) in
            [(1, 3.0, false), (1, 3.1, true), (8, 4.0, false), (8, 4.1, true), (60, 30.0, false), (60, 30.1, true)]
        {
            let (seconds, lease) = (Duration::from_secs_f64(silence), Duration::from_secs(lease));
            let now = Timestamp::from_micros(100_000_000);
            let last_heartbeat_at = now.before(seconds);
            let info: WorkerInfo = jobs::worker(WorkerId(uuid::Uuid::nil()));
            let stats = Stats { now, workers: vec![LiveWorker { info, last_heartbeat_at }], ..Stats::default() };
            assert_eq!(is_silent(last_heartbeat_at, now, lease), expected, "{silence} s, lease {lease:?}");
            assert_eq!(live(&stats.workers, now, lease).next().is_none(), expected);
            assert_eq!(without_silent(stats, lease).workers.is_empty(), expected);
        }
        let (now, later) = (Timestamp::from_micros(0), Timestamp::from_micros(10_000_000));
        assert!(!is_silent(later, now, Duration::from_secs(8)), "the store's clock was set back");
    }
}
