//! Statistics for tests of the built-in checks.

use async_endpoints_core::{
    JobName, Timestamp,
    store::{LiveWorker, TypeCapacity, TypeStats, WorkerId, WorkerSlots},
};

/// A type with this number of queued jobs and no others.
pub(super) fn of_type(name: &str, queued: u64) -> TypeStats {
    TypeStats {
        name: JobName::new(name).expect("a name"),
        counts: [queued, 0, 0, 0, 0, 0],
        never_started: 0,
        oldest_runnable: None,
        oldest_running: None,
        slow: 0,
        overdue: 0,
        stale: 0,
        unrecovered: 0,
    }
}

/// A live worker of this type.
pub(super) fn worker(name: &str) -> LiveWorker {
    let types = vec![TypeCapacity { name: JobName::new(name).expect("a name"), running: 0, limit: 1 }];
    let (worker, at) = (WorkerId(uuid::Uuid::nil()), Timestamp::from_micros(0));
    LiveWorker { worker, types, slots: WorkerSlots::default(), at }
}
