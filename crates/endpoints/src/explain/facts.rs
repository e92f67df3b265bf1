//! What is known about a job and the fleet.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, JobView, Timestamp,
    job::AttemptRecord,
    store::{LiveWorker, MinuteStats, Stats, TypeCapacity, TypeStats},
};

use crate::types::TypePause;

/// The stored facts that explain a job.
pub(crate) struct Facts<'a> {
    pub(crate) job: &'a JobView,
    /// Read after the job: its time is the present.
    pub(crate) stats: &'a Stats,
    /// Minute buckets of the last hour, oldest first. They may be some seconds older.
    pub(crate) minutes: &'a [MinuteStats],
    /// When the running attempts of the job's type started, the earliest first. May be a part of them, or empty.
    pub(crate) running: &'a [Timestamp],
    /// The pause of the job's type.
    pub(crate) pause: Option<&'a TypePause>,
    /// All paused types.
    pub(crate) paused: Vec<&'a JobName>,
    /// The duration of leases.
    pub(crate) lease: Duration,
    /// The timeout of an attempt, if the type is declared in this process.
    pub(crate) timeout: Option<Duration>,
    pub(crate) viewer: Viewer,
}

/// Who reads the explanation. Only operators see hosts, processes, and why a type is paused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Viewer {
    Caller,
    Operator,
}

/// The slots of a live worker for one type.
pub(super) struct Capacity<'a> {
    pub(super) worker: &'a LiveWorker,
    pub(super) of_type: &'a TypeCapacity,
}

impl Capacity<'_> {
    /// Slots that a job of the type can take now.
    pub(super) fn free(&self) -> u32 {
        self.worker.info.slots.idle.min(self.of_type.limit.saturating_sub(self.of_type.running))
    }

    /// Maximum number of attempts of the type. Leaked slots run none.
    pub(super) fn limit(&self) -> u32 {
        self.of_type.limit.min(self.slots())
    }

    /// Slots for attempts of all types.
    pub(super) fn slots(&self) -> u32 {
        self.worker.info.slots.busy + self.worker.info.slots.idle
    }

    /// Whether the worker has free slots, and runs as many jobs of the type as it may.
    pub(super) fn is_at_limit(&self) -> bool {
        self.worker.info.slots.idle > 0 && self.of_type.running >= self.of_type.limit
    }
}

impl<'a> Facts<'a> {
    pub(super) fn now(&self) -> Timestamp {
        self.stats.now
    }

    /// The live workers with a handler for the job's type.
    pub(super) fn taking(&self) -> Vec<Capacity<'a>> {
        let of_job = |capacity: &&TypeCapacity| capacity.name == self.job.name;
        let capacity =
            |worker: &'a LiveWorker| worker.info.types.iter().find(of_job).map(|of_type| Capacity { worker, of_type });
        self.stats.workers.iter().filter_map(capacity).collect()
    }

    /// The counts of the job's type; none if the statistics do not have it yet.
    pub(super) fn of_type(&self) -> Option<&'a TypeStats> {
        self.stats.types.iter().find(|of_type| of_type.name == self.job.name)
    }

    /// The due time of a job that waits for it.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let is_scheduled = self.job.status == JobStatus::Scheduled;
        self.job.scheduled_at.filter(|due| is_scheduled && *due > self.now())
    }

    /// Since when a waiting job is runnable: its acceptance, its due time, or the end of its last attempt.
    pub(super) fn runnable_since(&self) -> Timestamp {
        let ended = self.last_attempt().and_then(|attempt| attempt.ended_at);
        [self.job.scheduled_at, ended].into_iter().flatten().fold(self.job.created_at, Timestamp::max)
    }

    pub(super) fn last_attempt(&self) -> Option<&'a AttemptRecord> {
        self.job.attempts.last()
    }
}
