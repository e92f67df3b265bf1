//! Positions and estimates.

use std::time::Duration;

use async_endpoints_core::{
    JobStatus,
    store::{MinuteStats, TypeStats},
};
use async_endpoints_testkit::jobs::name;

use super::{World, at};
use crate::explain::QueuePosition;

#[test]
fn position_is_exact_up_to_its_limit() {
    let mut world = World::queued(999);
    assert_eq!(world.explain().position, Some(QueuePosition { ahead: 999, exact: true }));
    world.job.ahead = Some(1_000);
    assert_eq!(world.explain().position, Some(QueuePosition { ahead: 1_000, exact: false }));
    world.stats.types.push(counts("A", [5_000, 0, 0, 0, 0, 0]));
    world.minutes = vec![arrivals(0, 900), arrivals(1, 2_000)];
    let position = Some(QueuePosition { ahead: 3_000, exact: false });
    assert_eq!(world.explain().position, position, "2 000 jobs came in a later minute");
    for status in [JobStatus::InProgress, JobStatus::Completed] {
        assert_eq!(World::new(status).explain().position, None, "{status}");
    }
}

#[test]
fn estimate_needs_facts() {
    let free = World::queued(2).worker("A", 1, 8, 7).explain().estimate.expect("a slot is free for the job");
    assert_eq!((free.from, free.basis.as_str()), (at(100), "a free slot"));
    let mut busy = World::queued(0).worker("A", 0, 8, 8);
    busy.stats.types.push(counts("A", [1, 0, 8, 0, 0, 0]));
    assert_eq!(busy.explain().estimate, None, "no attempt has ended yet, and the heartbeat is old");
    let mut known = World::queued(8).worker("A", 8, 8, 0);
    let mut minute = MinuteStats::new(1, name("A"));
    (0..400).for_each(|_| minute.processing_time.record(Duration::from_secs(10)));
    known.minutes.push(minute);
    known.stats.types.push(counts("A", [9, 0, 8, 0, 0, 0]));
    let estimate = known.explain().estimate.expect("run times are known");
    assert_eq!(estimate.basis, "8 jobs ahead, 8 slots and the run times of 400 attempts");
    assert!(estimate.from > at(105) && estimate.to < at(125), "{estimate:?}");
    let mut waiting = World::new(JobStatus::Scheduled).worker("A", 0, 8, 8);
    waiting.job.scheduled_at = Some(at(200));
    assert_eq!(waiting.explain().estimate, None, "no job of the type has started");
    let mut minute = MinuteStats::new(1, name("A"));
    minute.queue_time.record(Duration::from_secs(4));
    waiting.minutes.push(minute);
    let estimate = waiting.explain().estimate.expect("queue times are known");
    assert!(estimate.from == at(200) && estimate.to > at(204) && estimate.to < at(207), "{estimate:?}");
    assert_eq!(World::running(90).explain().estimate, None);
}

fn counts(of: &str, counts: [u64; 6]) -> TypeStats {
    TypeStats {
        name: name(of),
        counts,
        never_started: 0,
        oldest_runnable: None,
        oldest_running: None,
        slow: 0,
        overdue: 0,
        stale: 0,
        unrecovered: 0,
    }
}

fn arrivals(minute: i64, arrivals: u64) -> MinuteStats {
    MinuteStats { arrivals, ..MinuteStats::new(minute, name("A")) }
}
