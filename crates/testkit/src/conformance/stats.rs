//! Statistics: counts, ages, minutes, and live workers.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, Priority, Timestamp,
    job::AttemptOutcome,
    limits::STATS_MINUTES,
    store::{
        Claim, Heartbeat, Histogram, MinuteStats, NewJob, Outcome, Settlement, StatsQuery, TypeCapacity, TypeCutoffs,
        TypeStats, WorkerId, WorkerInfo, WorkerSlots,
    },
};
use uuid::Uuid;

use super::run_concurrently;
use crate::{
    Rig,
    jobs::{completed, digest, error, key, name},
    rig::LONG,
};

/// Returns every minute, as a test may run across the start of a minute.
const ALL_MINUTES: StatsQuery = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };

/// The statistics of the type `of`, counted with cutoffs in units.
async fn counts_with_cutoffs(rig: &Rig, of: &str, slow: u32, overdue: u32, stuck: u32) -> TypeStats {
    let [slow_after, overdue_after, stuck_after] = [slow, overdue, stuck].map(|n| rig.units(n));
    let cutoffs = vec![TypeCutoffs { name: name(of), slow_after, overdue_after, stuck_after }];
    let stats = rig.stats(&StatsQuery { since_minute: None, cutoffs }).await;
    stats.types.into_iter().find(|of_type| of_type.name == name(of)).expect("a type with jobs has statistics")
}

/// The sum of all minutes of the type `of`.
async fn sum_of_minutes(rig: &Rig, of: &str) -> MinuteStats {
    let mut sum = MinuteStats::new(0, name(of));
    for minute in rig.stats(&ALL_MINUTES).await.minutes.into_iter().filter(|minute| minute.name == name(of)) {
        sum.arrivals += minute.arrivals;
        for (total, count) in sum.attempts.iter_mut().zip(minute.attempts) {
            *total += count;
        }
        for (total, count) in sum.ended.iter_mut().zip(minute.ended) {
            *total += count;
        }
        sum.slow += minute.slow;
        sum.queue_time.merge(&minute.queue_time);
        sum.processing_time.merge(&minute.processing_time);
    }
    sum
}

/// Scheduled jobs that never started are also counted separately.
pub async fn jobs_are_counted_by_type_and_state(rig: &Rig) {
    let retried = rig.start("alpha").await.lease;
    rig.again(retried, 900).await;
    let (failed, completed) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.fail(failed).await;
    rig.complete(completed).await;
    rig.start("alpha").await;
    let canceled = rig.queue("alpha").await;
    rig.cancel(canceled).await;
    for _ in 0..3 {
        rig.queue("alpha").await;
        rig.put(&NewJob { delay: rig.units(900), ..rig.job("alpha") }).await;
    }
    rig.queue("beta").await;
    let alpha = rig.counts("alpha").await;
    assert_eq!((alpha.counts, alpha.never_started, alpha.waiting()), ([3, 4, 1, 1, 1, 1], 3, 6));
    let beta = rig.counts("beta").await;
    assert_eq!((beta.counts, beta.never_started), ([1, 0, 0, 0, 0, 0], 0));
    let names: Vec<String> = rig.stats(&StatsQuery::default()).await.types.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["alpha", "beta"], "types are sorted by name");
}

pub async fn empty_store_has_no_counts(rig: &Rig) {
    let cutoffs = vec![TypeCutoffs {
        name: name("alpha"),
        slow_after: Duration::ZERO,
        overdue_after: Duration::ZERO,
        stuck_after: Duration::ZERO,
    }];
    let stats = rig.stats(&StatsQuery { since_minute: Some(0), cutoffs }).await;
    assert!(stats.types.iter().all(|of_type| of_type.counts == [0; 6]));
    assert_eq!((stats.minutes.len(), stats.workers.len(), stats.quarantined), (0, 0, 0));
    rig.advance(1).await;
    assert!(rig.stats(&StatsQuery::default()).await.now > stats.now, "`now` is the store's current time");
}

/// `oldest_runnable` is the time at which the longest-waiting queued or due job became runnable.
pub async fn oldest_runnable_ignores_priority(rig: &Rig) {
    let oldest = async || rig.counts("alpha").await.oldest_runnable;
    let delayed = rig.put(&NewJob { delay: rig.units(3), ..rig.job("alpha") }).await;
    assert_eq!(oldest().await, None, "not due yet");
    rig.advance(4).await;
    let due = rig.view(delayed).await.scheduled_at;
    assert_eq!(oldest().await, due, "due but not promoted");
    let mut low = rig.job("alpha");
    low.terms.priority = Priority::LOWEST;
    rig.put(&low).await;
    rig.advance(1).await;
    let mut high = rig.job("alpha");
    high.terms.priority = Priority::HIGHEST;
    rig.put(&high).await;
    assert_eq!(oldest().await, due);
    rig.cancel(delayed).await;
    assert_eq!(oldest().await, Some(rig.view(low.id).await.created_at), "ordered by waiting time, not by priority");
    rig.cancel(low.id).await;
    assert_eq!(oldest().await, Some(rig.view(high.id).await.created_at));
    rig.take("alpha").await;
    assert_eq!(oldest().await, None);
}

pub async fn slow_and_overdue_attempts_are_counted(rig: &Rig) {
    let first = rig.start("alpha").await;
    rig.advance(30).await;
    let second = rig.start("alpha").await;
    rig.advance(2).await;
    let counts = counts_with_cutoffs(rig, "alpha", 1, 25, LONG).await;
    assert_eq!((counts.oldest_running, counts.slow, counts.overdue), (Some(first.started_at), 2, 1));
    let counts = counts_with_cutoffs(rig, "alpha", 4_000, 4_000, LONG).await;
    assert_eq!((counts.slow, counts.overdue), (0, 0));
    let counts = rig.counts("alpha").await;
    assert_eq!((counts.slow, counts.overdue, counts.stale, counts.unrecovered), (0, 0, 0, 0), "without cutoffs");
    rig.complete(first.lease).await;
    let counts = counts_with_cutoffs(rig, "alpha", 1, 5_000, LONG).await;
    assert_eq!((counts.oldest_running, counts.slow), (Some(second.started_at), 1));
}

/// Queued and due jobs are stale after the cutoff.
pub async fn long_waiting_jobs_are_stale(rig: &Rig) {
    rig.queue("alpha").await;
    rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    rig.put(&NewJob { delay: rig.units(4_000), ..rig.job("alpha") }).await;
    rig.advance(30).await;
    rig.queue("alpha").await;
    rig.queue("beta").await;
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 25).await.stale, 2);
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 4_000).await.stale, 0);
    assert_eq!(rig.counts("beta").await.stale, 0);
    rig.take("alpha").await;
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 25).await.stale, 1);
}

/// Leases that expired before the cutoff and were not reclaimed are unrecovered.
pub async fn expired_leases_are_unrecovered(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    rig.take_for("alpha", 1).await;
    rig.start("alpha").await;
    rig.advance(8).await;
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 4).await.unrecovered, 1);
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 4_000).await.unrecovered, 0);
    rig.sweep().await;
    assert_eq!(counts_with_cutoffs(rig, "alpha", LONG, LONG, 4).await.unrecovered, 0);
}

/// Minutes count attempts by outcome, ended jobs by state, and slow attempts. They record queue and processing times.
pub async fn minutes_count_attempts_and_ended_jobs(rig: &Rig) {
    rig.warm().await;
    let (slow, retried) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    let settle = Settlement { slow: true, ..rig.settlement(slow, completed("1")) };
    rig.settle_one(settle.clone()).await;
    rig.settle_one(settle).await;
    rig.again(retried, 900).await;
    let failed = rig.start("alpha").await.lease;
    rig.fail(failed).await;
    let canceled = rig.start("alpha").await.lease;
    rig.settle(canceled, Outcome::Canceled { error: error("X") }).await;
    let released = rig.start("alpha").await.lease;
    rig.release(released).await;
    rig.lose("alpha").await;
    let requested = rig.take("alpha").await.lease;
    rig.cancel(requested.job).await;
    rig.fail_canceled(requested).await;
    let waiting = rig.queue("alpha").await;
    rig.cancel(waiting).await;
    rig.cancel(waiting).await;
    rig.queue("beta").await;
    let sum = sum_of_minutes(rig, "alpha").await;
    // Completed, Retried, Failed, Canceled, Released, Lost.
    assert_eq!(sum.attempts, [1, 1, 1, 2, 1, 1]);
    assert_eq!(sum.attempts(AttemptOutcome::Canceled), 2, "an attempt ended by a request counts as canceled");
    assert_eq!(sum.ended, [1, 1, 3], "Completed, Failed, Canceled, including jobs canceled while waiting");
    assert_eq!(sum.slow, 1, "a repeated settlement is not counted");
    assert_eq!((sum.queue_time.count(), sum.processing_time.count()), (7, 6), "a lost attempt has no processing time");
    let beta = sum_of_minutes(rig, "beta").await;
    assert_eq!((beta.arrivals, beta.attempts, beta.ended), (1, [0; 6], [0; 3]));
}

/// Minutes count accepted jobs: submissions, delayed or not, and the new jobs of operators. A refused or repeated submission
/// is not counted.
pub async fn minutes_count_accepted_jobs(rig: &Rig) {
    let delayed = NewJob { key: Some(key("k")), delay: rig.units(900), ..rig.job("alpha") };
    let repeated = NewJob { id: JobId::random(), ..delayed.clone() };
    let conflict = NewJob { fingerprint: digest(2), ..repeated.clone() };
    let full = NewJob { queue_limit: Some(1), ..rig.job("alpha") };
    for job in [&delayed, &repeated, &conflict, &full] {
        rig.insert(job).await;
    }
    let [first, second] = [rig.queue("alpha").await, rig.queue("alpha").await];
    rig.queue("beta").await;
    rig.cancel(first).await;
    let new = JobId::random();
    rig.retry_as(first, new).await;
    rig.retry_as(first, JobId::random()).await;
    rig.retry_as(second, JobId::random()).await;
    let attempt = rig.take("alpha").await.lease;
    rig.again(attempt, 900).await;
    assert_eq!(sum_of_minutes(rig, "alpha").await.arrivals, 4, "one delayed, two queued, one made by a retry");
    assert_eq!(sum_of_minutes(rig, "beta").await.arrivals, 1);
}

pub async fn minutes_count_lost_jobs_as_failed(rig: &Rig) {
    rig.warm().await;
    let mut job = rig.job("alpha");
    job.terms.max_losses = 0;
    rig.put(&job).await;
    rig.lose("alpha").await;
    let sum = sum_of_minutes(rig, "alpha").await;
    assert_eq!((sum.attempts, sum.ended), ([0, 0, 0, 0, 0, 1], [0, 1, 0]));
}

/// Queue time lasts from runnable to started, processing time from started to ended, by the store's clock.
pub async fn minutes_hold_queue_and_processing_time(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    rig.put(&NewJob { delay: Duration::from_secs(50), ..rig.job("alpha") }).await;
    clock.advance(Duration::from_secs(52));
    let lease = rig.take("alpha").await.lease;
    clock.advance(Duration::from_millis(200));
    rig.complete(lease).await;
    let sum = sum_of_minutes(rig, "alpha").await;
    assert_eq!((sum.queue_time.sum_micros, sum.processing_time.sum_micros), (2_000_000, 200_000));
}

/// All stores count a duration in the same histogram bucket.
pub async fn minutes_hold_equal_histograms(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    for micros in [0, 1_000, 17_000, 31_000, 32_000, 1_000_000, 65_536_000, 3_600_000_000, 43_200_000_000] {
        let duration = Duration::from_micros(micros);
        let mut expected = Histogram::default();
        expected.record(duration);
        clock.advance(Duration::from_secs(60));
        rig.queue("alpha").await;
        clock.advance(duration);
        let lease = rig.take("alpha").await.lease;
        let started = present_minute(rig, "alpha").await;
        clock.advance(Duration::from_secs(60) + duration);
        rig.complete(lease).await;
        let ended = present_minute(rig, "alpha").await;
        assert_eq!((started.queue_time, started.processing_time.count()), (expected, 0));
        let mut expected = Histogram::default();
        expected.record(Duration::from_secs(60) + duration);
        assert_eq!((ended.queue_time.count(), ended.processing_time), (0, expected));
    }
}

/// The present minute of the type `of`.
async fn present_minute(rig: &Rig, of: &str) -> MinuteStats {
    let stats = rig.stats(&ALL_MINUTES).await;
    let mut minutes = stats.minutes.into_iter();
    minutes
        .find(|minute| (minute.minute, &minute.name) == (stats.now.minute(), &name(of)))
        .expect("a minute with events")
}

/// `since_minute` is the first minute returned. Without `since_minute`, no minutes are returned.
pub async fn minutes_are_listed_oldest_first(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let mut minutes = Vec::new();
    for _ in 0..3 {
        let lease = rig.start("alpha").await.lease;
        rig.complete(lease).await;
        let lease = rig.start("beta").await.lease;
        rig.complete(lease).await;
        minutes.push(rig.stats(&StatsQuery::default()).await.now.minute());
        clock.advance(Duration::from_secs(60));
    }
    let since = async |minute| -> Vec<i64> {
        let query = StatsQuery { since_minute: minute, cutoffs: Vec::new() };
        let mut minutes: Vec<i64> = rig.stats(&query).await.minutes.iter().map(|stats| stats.minute).collect();
        assert!(minutes.is_sorted(), "oldest first");
        minutes.dedup();
        minutes
    };
    assert_eq!(since(Some(minutes[0])).await, minutes);
    assert_eq!(since(Some(minutes[1])).await, minutes[1..]);
    assert!(since(Some(minutes[2] + 1)).await.is_empty());
    assert!(since(None).await.is_empty());
    let of_alpha = rig.stats(&ALL_MINUTES).await.minutes.into_iter().filter(|stats| stats.name == name("alpha"));
    assert!(of_alpha.into_iter().all(|stats| stats.ended == [1, 0, 0]), "one job ended in each minute");
}

/// Minutes are kept for `STATS_MINUTES`.
pub async fn old_minutes_are_dropped(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let lease = rig.start("alpha").await.lease;
    rig.complete(lease).await;
    clock.advance(Duration::from_secs(60 * (STATS_MINUTES as u64 - 1)));
    assert_eq!(sum_of_minutes(rig, "alpha").await.ended, [1, 0, 0]);
    clock.advance(Duration::from_secs(60 * 3));
    let lease = rig.start("alpha").await.lease;
    rig.complete(lease).await;
    assert_eq!(sum_of_minutes(rig, "alpha").await.ended, [1, 0, 0], "only the minute of the second job");
}

/// A worker is listed as its last heartbeat describes it until its heartbeat expires or the worker deregisters (`ttl` of zero).
pub async fn heartbeats_show_live_workers(rig: &Rig) {
    let heartbeat = |ttl: u32, busy: u32| Heartbeat {
        worker: WorkerInfo {
            id: WorkerId(Uuid::new_v4()),
            host: "höst \"1\" \n".to_owned(),
            pid: u32::MAX,
            version: "1.2.3-ä".to_owned(),
            started_at: Timestamp::from_micros(1_700_000_000_123_456),
            slots: WorkerSlots { busy, idle: 3, leaked: 1 },
            types: vec![TypeCapacity { name: name("alpha"), running: busy, limit: 8 }],
        },
        ttl: rig.units(ttl),
    };
    let (short, long) = (heartbeat(20, 1), heartbeat(LONG, 2));
    let send = async |heartbeat: &Heartbeat| {
        rig.store.renew(heartbeat, &[], rig.units(9)).await.expect("the store answers");
    };
    let live = async || -> Vec<(WorkerId, u32, Timestamp)> {
        let workers = rig.stats(&StatsQuery::default()).await.workers;
        workers.iter().map(|live| (live.info.id, live.info.slots.busy, live.last_heartbeat_at)).collect()
    };
    send(&short).await;
    send(&long).await;
    let stats = rig.stats(&StatsQuery::default()).await;
    assert_eq!(stats.workers.len(), 2);
    let listed = stats.workers.iter().find(|live| live.info.id == long.worker.id).expect("the worker is listed");
    assert_eq!(listed.info, long.worker);
    assert!(listed.last_heartbeat_at <= stats.now);
    rig.advance(21).await;
    assert_eq!(live().await, [(long.worker.id, 2, listed.last_heartbeat_at)]);
    let mut changed = long.clone();
    changed.worker.slots.busy = 5;
    send(&changed).await;
    let workers = live().await;
    assert_eq!((workers.len(), workers[0].1), (1, 5), "the latest heartbeat counts");
    assert!(workers[0].2 > listed.last_heartbeat_at);
    send(&Heartbeat { ttl: Duration::ZERO, ..changed }).await;
    assert_eq!(live().await, []);
    send(&short).await;
    assert_eq!(live().await.len(), 1, "an expired worker can return");
}

/// After many concurrent changes, the counts match the jobs.
pub async fn counts_hold_under_contention(rig: &Rig) {
    let workers = (0..8).map(|worker| {
        let (store, time) = (rig.store.clone(), rig.time.clone());
        let rounds: Vec<(NewJob, Claim)> = (0..12).map(|_| (rig.job("alpha"), rig.wanting(&["alpha"], 2))).collect();
        async move {
            for (round, (job, claim)) in rounds.into_iter().enumerate() {
                let id = job.id;
                store.insert(job).await.expect("the store answers");
                for attempt in store.claim(&claim).await.expect("the store answers").attempts {
                    let outcome = match (round + worker) % 4 {
                        0 => completed("1"),
                        1 => Outcome::Retry { delay: time.units(900), error: error("R") },
                        2 => Outcome::Failed { error: error("F") },
                        _ => Outcome::Released,
                    };
                    let settle = Settlement::new(attempt.lease, outcome, error("JOB_CANCELED"));
                    store.settle(&[settle]).await.expect("the store answers");
                }
                if round % 5 == 0 {
                    store.cancel(id, &error("JOB_CANCELED")).await.expect("the store answers");
                }
            }
        }
    });
    run_concurrently(workers).await;
    let counts = rig.counts("alpha").await;
    assert_eq!(counts.counts.iter().sum::<u64>(), 96);
    assert_eq!(counts.count(JobStatus::InProgress), 0);
}
