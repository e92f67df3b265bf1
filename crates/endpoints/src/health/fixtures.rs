//! Statistics for tests of the built-in checks.

use async_endpoints_core::{
    JobName, Timestamp,
    store::{LiveWorker, TypeCapacity, TypeStats, WorkerId, WorkerInfo},
};
use async_endpoints_testkit::jobs;

use crate::types::{Controls, TypePause};

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

/// Decisions of operators: this type is paused.
pub(super) fn paused(name: &str) -> Controls {
    let pause = TypePause { reason: "no paper".to_owned(), since: Timestamp::default(), until: None };
    let mut controls = Controls::default();
    controls.change(&JobName::new(name).expect("a name"), |control| control.pause = Some(pause));
    controls
}

/// A live worker of this type.
pub(super) fn worker(name: &str) -> LiveWorker {
    let types = vec![TypeCapacity { name: JobName::new(name).expect("a name"), running: 0, limit: 1 }];
    LiveWorker {
        info: WorkerInfo { types, ..jobs::worker(WorkerId(uuid::Uuid::nil())) },
        last_heartbeat_at: Timestamp::default(),
    }
}
