//! Statistics: counts, ages, slots of minutes, and live workers.

use std::time::Duration;

use async_endpoints_core::{
    JobStatus, JobStore as _, Timestamp,
    job::AttemptOutcome,
    limits::STATS_MINUTES,
    store::{
        Claim, Heartbeat, MinuteStats, NewJob, Outcome, Settlement, StatsQuery, TypeCapacity, TypeCutoffs, TypeStats,
        WorkerId, WorkerSlots,
    },
};
use uuid::Uuid;

use crate::{
    Rig,
    jobs::{completed, error, name},
    rig::LONG,
};

/// The minute-old past too: a test may cross the border of a minute.
const ALL_SLOTS: StatsQuery = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };

/// Counts what is older than so many units.
async fn older(rig: &Rig, of: &str, slow: u32, overdue: u32, stuck: u32) -> TypeStats {
    let [slow_after, overdue_after, stuck_after] = [slow, overdue, stuck].map(|n| rig.units(n));
    let cutoffs = vec![TypeCutoffs { name: name(of), slow_after, overdue_after, stuck_after }];
    let stats = rig.stats(&StatsQuery { since_minute: None, cutoffs }).await;
    stats.types.into_iter().find(|kind| kind.name == name(of)).expect("a type that has jobs is counted")
}

/// All slots of a type, added up.
async fn slots(rig: &Rig, of: &str) -> MinuteStats {
    let mut sum = MinuteStats::new(0, name(of));
    for slot in rig.stats(&ALL_SLOTS).await.minutes.into_iter().filter(|slot| slot.name == name(of)) {
        for (mine, theirs) in sum.attempts.iter_mut().zip(slot.attempts) {
            *mine += theirs;
        }
        for (mine, theirs) in sum.ended.iter_mut().zip(slot.ended) {
            *mine += theirs;
        }
        sum.slow += slot.slow;
        sum.queue_time.merge(&slot.queue_time);
        sum.processing_time.merge(&slot.processing_time);
    }
    sum
}

/// Jobs are counted by type and state, and never-started ones apart.
pub async fn jobs_are_counted_by_type_and_state(rig: &Rig) {
    let again = rig.start("alpha").await.lease;
    rig.again(again, 900).await;
    let (failed, done) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.fail(failed).await;
    rig.complete(done).await;
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
    assert_eq!(names, ["alpha", "beta"], "by name");
}

/// A fresh store has nothing to tell but the time.
pub async fn empty_store_has_no_counts(rig: &Rig) {
    let cutoffs = vec![TypeCutoffs {
        name: name("alpha"),
        slow_after: Duration::ZERO,
        overdue_after: Duration::ZERO,
        stuck_after: Duration::ZERO,
    }];
    let stats = rig.stats(&StatsQuery { since_minute: Some(0), cutoffs }).await;
    assert!(stats.types.iter().all(|kind| kind.counts == [0; 6]));
    assert_eq!((stats.minutes.len(), stats.workers.len(), stats.quarantined), (0, 0, 0));
    rig.advance(1).await;
    assert!(rig.stats(&StatsQuery::default()).await.now > stats.now, "the store's time passes");
}

/// The oldest runnable job is the one that waits longest, whatever its priority; due ones count.
pub async fn oldest_runnable_ignores_priority(rig: &Rig) {
    let oldest = async || rig.counts("alpha").await.oldest_runnable;
    let delayed = rig.put(&NewJob { delay: rig.units(3), ..rig.job("alpha") }).await;
    assert_eq!(oldest().await, None, "not due yet");
    rig.advance(4).await;
    let due = rig.view(delayed).await.scheduled_at;
    assert_eq!(oldest().await, due, "due, though nobody promoted it");
    let mut low = rig.job("alpha");
    low.terms.priority = async_endpoints_core::Priority::LOWEST;
    rig.put(&low).await;
    rig.advance(1).await;
    let mut high = rig.job("alpha");
    high.terms.priority = async_endpoints_core::Priority::HIGHEST;
    rig.put(&high).await;
    assert_eq!(oldest().await, due);
    rig.cancel(delayed).await;
    assert_eq!(oldest().await, Some(rig.view(low.id).await.created_at), "by waiting, not by priority");
    rig.cancel(low.id).await;
    assert_eq!(oldest().await, Some(rig.view(high.id).await.created_at));
    rig.take("alpha").await;
    assert_eq!(oldest().await, None);
}

/// The longest running attempt, and the slow and overdue ones.
pub async fn slow_and_overdue_attempts_are_counted(rig: &Rig) {
    let first = rig.start("alpha").await;
    rig.advance(30).await;
    let second = rig.start("alpha").await;
    rig.advance(2).await;
    let told = older(rig, "alpha", 1, 25, LONG).await;
    assert_eq!((told.oldest_running, told.slow, told.overdue), (Some(first.started_at), 2, 1));
    let told = older(rig, "alpha", 4_000, 4_000, LONG).await;
    assert_eq!((told.slow, told.overdue), (0, 0));
    let silent = rig.counts("alpha").await;
    assert_eq!((silent.slow, silent.overdue, silent.stale, silent.unrecovered), (0, 0, 0, 0), "no cut-offs, no counts");
    rig.complete(first.lease).await;
    let told = older(rig, "alpha", 1, 5_000, LONG).await;
    assert_eq!((told.oldest_running, told.slow), (Some(second.started_at), 1));
}

/// Jobs that are runnable for long are stale: queued and due ones.
pub async fn long_waiting_jobs_are_stale(rig: &Rig) {
    rig.queue("alpha").await;
    rig.put(&NewJob { delay: rig.units(1), ..rig.job("alpha") }).await;
    rig.put(&NewJob { delay: rig.units(4_000), ..rig.job("alpha") }).await;
    rig.advance(30).await;
    rig.queue("alpha").await;
    rig.queue("beta").await;
    assert_eq!(older(rig, "alpha", LONG, LONG, 25).await.stale, 2);
    assert_eq!(older(rig, "alpha", LONG, LONG, 4_000).await.stale, 0);
    assert_eq!(rig.counts("beta").await.stale, 0);
    rig.take("alpha").await;
    assert_eq!(older(rig, "alpha", LONG, LONG, 25).await.stale, 1);
}

/// Leases that expired long ago and that nobody took are unrecovered.
pub async fn expired_leases_are_unrecovered(rig: &Rig) {
    rig.warm().await;
    rig.queue("alpha").await;
    rig.take_for("alpha", 1).await;
    rig.start("alpha").await;
    rig.advance(8).await;
    assert_eq!(older(rig, "alpha", LONG, LONG, 4).await.unrecovered, 1);
    assert_eq!(older(rig, "alpha", LONG, LONG, 4_000).await.unrecovered, 0);
    rig.sweep().await;
    assert_eq!(older(rig, "alpha", LONG, LONG, 4).await.unrecovered, 0);
}

/// Slots count each attempt by its outcome, each end by its state, slow attempts and both times.
pub async fn minutes_count_attempts_and_ended_jobs(rig: &Rig) {
    rig.warm().await;
    let (c, r) = (rig.start("alpha").await.lease, rig.start("alpha").await.lease);
    rig.settle_one(Settlement { slow: true, ..rig.settlement(c, completed("1")) }).await;
    rig.settle_one(Settlement { slow: true, ..rig.settlement(c, completed("1")) }).await;
    rig.again(r, 900).await;
    let f = rig.start("alpha").await.lease;
    rig.fail(f).await;
    let x = rig.start("alpha").await.lease;
    rig.settle(x, Outcome::Canceled { error: error("X") }).await;
    let released = rig.start("alpha").await.lease;
    rig.release(released).await;
    rig.lose("alpha").await;
    let asked = rig.take("alpha").await.lease;
    rig.cancel(asked.job).await;
    rig.settle(asked, Outcome::Failed { error: error("F") }).await;
    let waiting = rig.queue("alpha").await;
    rig.cancel(waiting).await;
    rig.cancel(waiting).await;
    rig.queue("beta").await;
    let sum = slots(rig, "alpha").await;
    // Completed, Retried, Failed, Canceled, Released, Lost.
    assert_eq!(sum.attempts, [1, 1, 1, 2, 1, 1]);
    assert_eq!(sum.attempts(AttemptOutcome::Canceled), 2, "what a request ended counts as canceled");
    assert_eq!(sum.ended, [1, 1, 3], "Completed, Failed, Canceled; waiting ones too");
    assert_eq!(sum.slow, 1, "a repeat counts nothing");
    assert_eq!((sum.queue_time.count(), sum.processing_time.count()), (7, 6), "how long a lost one ran nobody knows");
    let beta = slots(rig, "beta").await;
    assert_eq!((beta.attempts, beta.ended), ([0; 6], [0; 3]));
}

/// A job that lost too many leases ended Failed by a lost attempt.
pub async fn minutes_count_lost_jobs_as_failed(rig: &Rig) {
    rig.warm().await;
    let mut job = rig.job("alpha");
    job.terms.max_losses = 0;
    rig.put(&job).await;
    rig.lose("alpha").await;
    let sum = slots(rig, "alpha").await;
    assert_eq!((sum.attempts, sum.ended), ([0, 0, 0, 0, 0, 1], [0, 1, 0]));
}

/// Queue time is from runnable to started, processing time from started to ended, by the store's clock.
pub async fn minutes_hold_queue_and_processing_time(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    rig.put(&NewJob { delay: Duration::from_secs(50), ..rig.job("alpha") }).await;
    clock.advance(Duration::from_secs(52));
    let lease = rig.take("alpha").await.lease;
    clock.advance(Duration::from_millis(200));
    rig.complete(lease).await;
    let sum = slots(rig, "alpha").await;
    assert_eq!((sum.queue_time.sum_micros, sum.processing_time.sum_micros), (2_000_000, 200_000));
    assert_eq!((sum.queue_time.buckets[8], sum.processing_time.buckets[5]), (1, 1), "to 2.5 s and to 250 ms");
}

/// Each minute has its own slot, oldest first; `since_minute` cuts, and without it there are none.
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
        let mut told: Vec<i64> = rig.stats(&query).await.minutes.iter().map(|slot| slot.minute).collect();
        assert!(told.is_sorted(), "oldest first");
        told.dedup();
        told
    };
    assert_eq!(since(Some(minutes[0])).await, minutes);
    assert_eq!(since(Some(minutes[1])).await, minutes[1..]);
    assert!(since(Some(minutes[2] + 1)).await.is_empty());
    assert!(since(None).await.is_empty());
    let of_alpha = rig.stats(&ALL_SLOTS).await.minutes.into_iter().filter(|slot| slot.name == name("alpha"));
    assert!(of_alpha.into_iter().all(|slot| slot.ended == [1, 0, 0]), "one end in each minute");
}

/// Slots are kept for hours, not for ever.
pub async fn old_minutes_are_dropped(rig: &Rig) {
    let Some(clock) = rig.time.clock() else { return };
    let lease = rig.start("alpha").await.lease;
    rig.complete(lease).await;
    clock.advance(Duration::from_secs(60 * (STATS_MINUTES as u64 - 1)));
    assert_eq!(slots(rig, "alpha").await.ended, [1, 0, 0]);
    clock.advance(Duration::from_secs(60 * 3));
    let lease = rig.start("alpha").await.lease;
    rig.complete(lease).await;
    assert_eq!(slots(rig, "alpha").await.ended, [1, 0, 0], "the second alone");
}

/// A beat shows who lives, what it takes and what its slots do, until its time is over or it says goodbye.
pub async fn heartbeats_show_live_workers(rig: &Rig) {
    let beat = |ttl: u32, busy: u32| Heartbeat {
        worker: WorkerId(Uuid::new_v4()),
        types: vec![TypeCapacity { name: name("alpha"), running: busy, limit: 8 }],
        slots: WorkerSlots { busy, idle: 3, leaked: 1 },
        ttl: rig.units(ttl),
    };
    let (short, lasting) = (beat(20, 1), beat(LONG, 2));
    let say = async |beat: &Heartbeat| {
        rig.store.renew(beat, &[], rig.units(9)).await.expect("the store answers");
    };
    let alive = async || -> Vec<(WorkerId, u32, Timestamp)> {
        let mut beats = rig.stats(&StatsQuery::default()).await.workers;
        beats.sort_by_key(|beat| beat.slots.busy);
        beats.iter().map(|beat| (beat.worker, beat.slots.busy, beat.at)).collect()
    };
    say(&short).await;
    say(&lasting).await;
    let both = rig.stats(&StatsQuery::default()).await;
    assert_eq!(both.workers.len(), 2);
    let told = both.workers.iter().find(|beat| beat.worker == lasting.worker).expect("it lives");
    assert_eq!((&told.types, told.slots), (&lasting.types, lasting.slots));
    assert!(told.at <= both.now);
    rig.advance(21).await;
    assert_eq!(alive().await.iter().map(|beat| beat.0).collect::<Vec<_>>(), [lasting.worker]);
    let changed = Heartbeat { slots: WorkerSlots { busy: 5, ..lasting.slots }, ..lasting.clone() };
    say(&changed).await;
    let now = alive().await;
    assert_eq!((now.len(), now[0].1), (1, 5), "the latest beat counts");
    assert!(now[0].2 > told.at);
    say(&Heartbeat { ttl: Duration::ZERO, ..changed }).await;
    assert_eq!(alive().await, []);
    say(&short).await;
    assert_eq!(alive().await.len(), 1, "who was gone can come back");
}

/// Many changes at once: the counts still are what the jobs say.
pub async fn counts_hold_under_contention(rig: &Rig) {
    let tasks: Vec<_> = (0..8_u32)
        .map(|worker| {
            let (store, time) = (rig.store.clone(), rig.time.clone());
            let jobs: Vec<NewJob> = (0..12).map(|_| rig.job("alpha")).collect();
            let claims: Vec<Claim> = (0..12).map(|_| rig.wanting(&["alpha"], 2)).collect();
            let settle = rig.settlement(
                async_endpoints_core::store::Lease {
                    job: jobs[0].id,
                    token: async_endpoints_core::store::LeaseToken::random(),
                },
                Outcome::Released,
            );
            tokio::spawn(async move {
                for (at, (job, claim)) in jobs.into_iter().zip(claims).enumerate() {
                    let id = job.id;
                    store.insert(job).await.expect("the store answers");
                    for attempt in store.claim(&claim).await.expect("the store answers").attempts {
                        let outcome = match (at as u32 + worker) % 4 {
                            0 => completed("1"),
                            1 => Outcome::Retry { delay: time.units(900), error: error("R") },
                            2 => Outcome::Failed { error: error("F") },
                            _ => Outcome::Released,
                        };
                        let settle = Settlement { lease: attempt.lease, outcome, ..settle.clone() };
                        store.settle(&[settle]).await.expect("the store answers");
                    }
                    if at % 5 == 0 {
                        store.cancel(id, &error("JOB_CANCELED")).await.expect("the store answers");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    let counts = rig.counts("alpha").await;
    assert_eq!(counts.counts.iter().sum::<u64>(), 96);
    assert_eq!(counts.count(JobStatus::InProgress), 0);
}
