//! What is known about a job and the fleet.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, JobView, Timestamp,
    job::AttemptRecord,
    store::{LiveWorker, MinuteStats, Stats, TypeStats},
};

use crate::{
    capacity::{self, Capacity},
    types::TypePause,
};

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
    /// An operator's limit of the type's concurrent attempts in each process.
    pub(crate) per_process: Option<u32>,
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

impl<'a> Facts<'a> {
    pub(super) fn now(&self) -> Timestamp {
        self.stats.now
    }

    /// The workers that are not silent.
    pub(super) fn live(&self) -> impl Iterator<Item = &'a LiveWorker> {
        capacity::live(&self.stats.workers, self.now(), self.lease)
    }

    /// The live workers with a handler for the job's type.
    pub(super) fn taking(&self) -> Vec<Capacity<'a>> {
        capacity::taking(self.live(), &self.job.name, self.per_process)
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
