//! The state of each job type, derived from the store's statistics and from what operators decided.

use std::{collections::BTreeSet, time::Duration};

use async_endpoints_core::{
    JobName, JobStatus,
    store::{LiveWorker, Stats, TypeCapacity},
};
use serde::Serialize;

use super::controls::{Controls, TypePause};
use crate::stats::millis;

/// A job type as operators see it, returned by [`AsyncEndpoints::types`](crate::AsyncEndpoints::types).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeState {
    /// The type's name.
    pub name: JobName,
    /// Jobs in the store by state.
    pub counts: TypeCounts,
    /// Waiting time of the runnable job that waits longest. Serialized in milliseconds, or null without waiting jobs.
    #[serde(serialize_with = "millis")]
    pub oldest_queued_age: Option<Duration>,
    /// Number of live workers with a handler for the type.
    pub workers: u64,
    /// Attempts that run in these workers, as of their last heartbeats.
    pub running: u64,
    /// Maximum number of concurrent attempts in these workers together. A pause does not change it.
    pub limit: u64,
    /// An operator's limit of concurrent attempts in each process. None if the declared limits count.
    pub per_process: Option<u32>,
    /// The pause, if the type is paused.
    pub pause: Option<TypePause>,
}

/// The number of a type's jobs in each state. Ended jobs count until they expire.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeCounts {
    /// Queued jobs.
    pub queued: u64,
    /// Scheduled jobs.
    pub scheduled: u64,
    /// Jobs in progress.
    pub in_progress: u64,
    /// Completed jobs.
    pub completed: u64,
    /// Failed jobs.
    pub failed: u64,
    /// Canceled jobs.
    pub canceled: u64,
}

/// The states of all types by name: those that are declared here, have or had jobs, have a live worker, or have a pause or
/// limit.
pub(crate) fn states(stats: &Stats, controls: &Controls, declared: &[JobName]) -> Vec<TypeState> {
    let stored = stats.types.iter().map(|of_type| &of_type.name);
    let taken = stats.workers.iter().flat_map(|worker| &worker.info.types).map(|capacity| &capacity.name);
    let names: BTreeSet<&JobName> = declared.iter().chain(stored).chain(taken).chain(controls.names()).collect();
    names.into_iter().map(|name| state(name, stats, controls)).collect()
}

pub(super) fn state(name: &JobName, stats: &Stats, controls: &Controls) -> TypeState {
    let stored = stats.types.iter().find(|of_type| of_type.name == *name);
    let count = |status| stored.map_or(0, |of_type| of_type.count(status));
    let oldest = stored.and_then(|of_type| of_type.oldest_runnable);
    let of_name = |worker: &'_ LiveWorker| worker.info.types.iter().find(|capacity| capacity.name == *name).cloned();
    let capacities: Vec<TypeCapacity> = stats.workers.iter().filter_map(of_name).collect();
    let control = controls.of(name);
    TypeState {
        name: name.clone(),
        counts: TypeCounts {
            queued: count(JobStatus::Queued),
            scheduled: count(JobStatus::Scheduled),
            in_progress: count(JobStatus::InProgress),
            completed: count(JobStatus::Completed),
            failed: count(JobStatus::Failed),
            canceled: count(JobStatus::Canceled),
        },
        oldest_queued_age: oldest.map(|since| stats.now.since(since)),
        workers: capacities.len() as u64,
        running: capacities.iter().map(|capacity| u64::from(capacity.running)).sum(),
        // A heartbeat may be older than the operator's limit.
        limit: capacities.iter().map(|capacity| u64::from(controls.limit(name, capacity.limit))).sum(),
        per_process: control.per_process,
        pause: control.pause,
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{
        Timestamp,
        store::{TypeStats, WorkerId, WorkerInfo},
    };
    use async_endpoints_testkit::jobs;

    use super::*;

    fn name(name: &str) -> JobName {
        JobName::new(name).expect("a valid name")
    }

    fn worker(of: &str, running: u32, limit: u32) -> LiveWorker {
        let types = vec![TypeCapacity { name: name(of), running, limit }];
        let info = WorkerInfo { types, ..jobs::worker(WorkerId(uuid::Uuid::nil())) };
        LiveWorker { info, last_heartbeat_at: Timestamp::default() }
    }

    #[test]
    fn state_joins_counts_workers_and_decisions() {
        let stored = TypeStats {
            name: name("Stored"),
            counts: [1, 2, 3, 4, 5, 6],
            never_started: 0,
            oldest_runnable: Some(Timestamp::from_micros(1_000_000)),
            oldest_running: None,
            slow: 0,
            overdue: 0,
            stale: 0,
            unrecovered: 0,
        };
        let stats = Stats {
            now: Timestamp::from_micros(3_500_000),
            types: vec![stored],
            workers: vec![worker("Stored", 3, 8), worker("Stored", 0, 1), worker("Elsewhere", 0, 4)],
            ..Stats::default()
        };
        let pause = TypePause { reason: "no paper".to_owned(), since: Timestamp::from_micros(7), until: None };
        let mut controls = Controls::default();
        controls.change(&name("Stored"), |control| control.per_process = Some(2));
        controls.change(&name("Paused"), |control| control.pause = Some(pause.clone()));
        let states = states(&stats, &controls, &[name("Declared")]);
        let names: Vec<&str> = states.iter().map(|state| state.name.as_str()).collect();
        assert_eq!(names, ["Declared", "Elsewhere", "Paused", "Stored"]);
        assert_eq!((states[0].workers, states[1].workers, states[1].limit), (0, 1, 4));
        assert_eq!(states[2].pause, Some(pause));
        let document = serde_json::json!({
            "name": "Stored",
            "counts": {
                "queued": 1, "scheduled": 2, "inProgress": 3, "completed": 4, "failed": 5, "canceled": 6,
            },
            "oldestQueuedAge": 2500.0, "workers": 2, "running": 3, "limit": 3, "perProcess": 2, "pause": null,
        });
        assert_eq!(serde_json::to_value(&states[3]).expect("JSON"), document);
    }
}
