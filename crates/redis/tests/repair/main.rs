//! Lost and damaged keys. Other jobs go on, a repair restores the indexes of readable jobs, and jobs that cannot be read are
//! quarantined.

// The lint does not know helpers of tests.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, StoreError,
    store::{JobLookup, Outcome, Reclaimed, Report, RetryAs, Settled, StatsQuery},
};
use async_endpoints_redis::Options;
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job, line},
    server::RedisServer,
};
use common::{HOUR, in_order, insert, open, sweep, take};
use rand::Rng as _;
use world::{LEASE, META, NUMBERS, World};

fn seed() -> u64 {
    let set = std::env::var("TESTKIT_SEED").ok().and_then(|seed| seed.parse().ok());
    set.unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

async fn damaged(seed: u64) -> World {
    println!("TESTKIT_SEED={seed}");
    let mut world = World::new(seed).await;
    world.work().await;
    in_order(&world.store).await;
    for _ in 0..20 {
        println!("{}", world.damage());
    }
    world
}

#[tokio::test]
async fn repair_restores_all_indexes() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        println!("{:?}", world.store.repair().await.unwrap());
        in_order(&world.store).await;
        world.check().await;
        world.survey().await;
        world.drain().await;
        world.ended().await;
        in_order(&world.store).await;
        world.clock.advance(HOUR * 3);
        world.store.prune(100).await.unwrap();
        in_order(&world.store).await;
    }
}

#[tokio::test]
async fn damaged_jobs_do_not_stop_others_before_a_repair() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        world.drain().await;
        world.survey().await;
        // All other jobs have ended. New jobs run.
        let new = insert(&world.store).await.unwrap();
        let taken = take(&world.store, 9).await;
        assert!(taken.iter().any(|one| one.lease.job == new.id), "{taken:?}");
        world.clock.advance(HOUR * 3);
        for _ in 0..3 {
            world.store.prune(100).await.expect("pruning");
        }
        world.survey().await;
        world.store.repair().await.unwrap();
        in_order(&world.store).await;
    }
}

/// A hash of all stored keys.
fn digest(world: &World) -> String {
    const SCRIPT: &str = "local keys, all = redis.call('KEYS', ARGV[1]), {} table.sort(keys) \
        for at, key in ipairs(keys) do all[at] = key .. redis.call('DUMP', key) end \
        return redis.sha1hex(table.concat(all))";
    world.cli(&["EVAL", SCRIPT, "0", &world.key("*")])
}

#[tokio::test]
async fn unreadable_counters_start_again() {
    for value in NUMBERS {
        let mut world = World::new(5).await;
        world.work().await;
        let (world, store, claim) = (&world, &world.store, common::claim_of("alpha", 4));
        let damage = || {
            world.miscount(value);
            META.iter().for_each(|field| drop(world.cli(&["HSET", &world.key("meta"), field, value])));
        };
        let waits = insert(store).await.unwrap().id;
        damage();
        store.insert(job("alpha", HOUR).delay(HOUR)).await.expect(value);
        let again = insert(store).await.expect(value).id;
        damage();
        store.cancel(waits, &error("C")).await.expect(value);
        damage();
        let taken = store.claim(&claim).await.expect(value).attempts;
        damage();
        let failed = Outcome::Failed { error: error("F") };
        let later = Outcome::Retry { delay: HOUR, error: error("R") };
        let ends = [completed("1"), failed, later];
        let ends: Vec<_> = taken.iter().zip(ends).map(|(one, end)| common::settlement(one.lease, end)).collect();
        store.settle(&ends).await.expect(value);
        damage();
        store.retry(taken[1].lease.job, &RetryAs { id: JobId::random(), trace: None }).await.expect(value);
        damage();
        store.reclaim(&sweep(LEASE)).await.expect(value);
        damage();
        world.cli(&["ZADD", &world.key("completed:alpha"), "0", &again.to_string()]);
        store.prune(9).await.expect(value);
        in_order(store).await;
        let stats = store.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await.expect(value);
        // The lowest number is a number, and is counted on.
        assert!(value.starts_with('-') || stats.repaired == 1, "{value}: {}", stats.repaired);
        world.survey().await;
    }
}

/// The answer of a call; `None` if it failed. A script that fails must not have changed anything.
async fn answered<T>(world: &World, what: &str, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    let before = digest(world);
    match call.await {
        Ok(answer) => Some(answer),
        Err(error) => {
            let failed_in_script = error.to_string().contains("user_script:");
            assert!(!failed_in_script || digest(world) == before, "{what} changed something: {error}");
            None
        }
    }
}

#[tokio::test]
async fn damaged_jobs_do_not_stop_calls_for_others() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        let mut leases = Vec::new();
        for _ in 0..6 {
            println!("{}, {}", world.damage(), world.damage());
            world.clock.advance(Duration::from_secs(7));
            let some = world.jobs[world.rng.random_range(0..world.jobs.len())].id;
            let store = &world.store;
            let keyed = world.jobs.iter().find(|job| job.id == some).unwrap().clone();
            let insert = async |delay| store.insert(job("alpha", HOUR).delay(delay)).await;
            answered(&world, "insert", insert(Duration::ZERO)).await.expect("accepted");
            answered(&world, "insert", insert(LEASE)).await.expect("accepted");
            answered(&world, "insert", store.insert(keyed)).await;
            let mut claim = common::claim_of("alpha", 3);
            claim.quotas.extend(common::claim_of("beta", 3).quotas);
            let taken = answered(&world, "claim", store.claim(&claim)).await.expect("claimed").attempts;
            leases.extend(taken.iter().map(|one| one.lease));
            let report = |lease| Report { lease, progress: None, logs: vec![line("one")] };
            let reports: Vec<_> = leases.iter().rev().take(9).copied().map(report).collect();
            answered(&world, "report", store.report(&reports)).await.expect("reported");
            let outcomes = [completed("1"), Outcome::Released, Outcome::Failed { error: error("F") }];
            let ends = leases.iter().rev().take(9).zip(outcomes.iter().cycle());
            let ends: Vec<_> = ends.map(|(lease, end)| common::settlement(*lease, end.clone())).collect();
            answered(&world, "settle", store.settle(&ends)).await.expect("settled");
            answered(&world, "cancel", store.cancel(some, &error("C"))).await;
            answered(&world, "retry", store.retry(some, &RetryAs { id: JobId::random(), trace: None })).await;
            answered(&world, "reclaim", store.reclaim(&sweep(LEASE))).await.expect("reclaimed");
            answered(&world, "prune", store.prune(9)).await;
        }
        world.store.repair().await.expect("repaired");
        in_order(&world.store).await;
    }
}

/// Redis does not roll a failed script back, so a script must find an unreadable field before its first write.
#[tokio::test]
async fn unreadable_job_leaves_other_jobs_whole() {
    for value in ["nan", "inf", "1e999", "1.5"] {
        let world = World::new(4).await;
        let store = &world.store;
        let damage = |id: JobId, field: &str| world.cli(&["HSET", &world.key(format_args!("job:{id}")), field, value]);
        insert(store).await.unwrap();
        insert(store).await.unwrap();
        let attempts = take(store, 2).await;
        damage(attempts[1].lease.job, "n");
        let ends = [0, 1].map(|at| common::settlement(attempts[at].lease, completed("1")));
        let answers = store.settle(&ends).await.unwrap();
        assert_eq!(answers[0], Settled::Settled(JobStatus::Completed), "{value}");
        let JobLookup::Found(job) = store.get(ends[0].lease.job).await.unwrap() else { panic!("not found") };
        assert_eq!(job.result.as_deref(), Some(b"1".as_slice()), "{value}");
        for field in ["n", "a", "rs"] {
            let (damaged, fine) = (insert(store).await.unwrap().id, insert(store).await.unwrap().id);
            damage(damaged, field);
            if field != "n" {
                // A claim reads these fields only if the job has a version.
                world.cli(&["HSET", &world.key(format_args!("job:{damaged}")), "n", "1"]);
            }
            let taken = take(store, 9).await;
            assert_eq!(taken.iter().map(|attempt| attempt.lease.job).collect::<Vec<_>>(), [fine], "{field} {value}");
        }
        let waits = insert(store).await.unwrap().id;
        damage(waits, "w");
        let before = digest(&world);
        store.cancel(waits, &error("C")).await.expect_err("it cannot be read");
        assert_eq!(digest(&world), before, "the call changed something");
        store.repair().await.unwrap();
        in_order(store).await;
    }
}

#[tokio::test]
async fn shared_key_of_another_type_is_corrupt() {
    for index in ["queued:alpha", "accepted:alpha", "running:alpha", "completed:alpha", "leased"] {
        let world = World::new(3).await;
        let store = &world.store;
        for _ in 0..3 {
            insert(store).await.unwrap();
        }
        let runs = take(store, 1).await.remove(0).lease;
        let key = world.key(index);
        world.cli(&["DEL", &key]);
        world.cli(&["SET", &key, "foreign"]);
        let error = store.repair().await.expect_err(index);
        assert!(matches!(error, StoreError::Corrupt(_)), "{index}: {error:?}");
        drop(insert(store).await);
        drop(store.claim(&common::claim_of("alpha", 1)).await);
        drop(store.settle(&[common::settlement(runs, completed("1"))]).await);
        world.cli(&["DEL", &key]);
        store.repair().await.unwrap();
        in_order(store).await;
        let counts = store.stats(&StatsQuery::default()).await.unwrap().types[0].counts;
        assert!((3..=4).contains(&counts.iter().sum::<u64>()), "{index}: {counts:?}");
    }
}

#[tokio::test]
async fn reclaim_skips_a_job_that_cannot_be_decoded() {
    let world = World::new(9).await;
    let store = &world.store;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let (damaged, fine) = (insert(store).await.unwrap().id, insert(store).await.unwrap().id);
    let claim = async_endpoints_core::store::Claim { lease: LEASE, ..common::claim_of("alpha", 9) };
    assert_eq!(store.claim(&claim).await.unwrap().attempts.len(), 2);
    world.cli(&["HSET", &world.key(format_args!("job:{damaged}")), "a", "9999999999"]);
    for _ in 0..3 {
        world.clock.advance(LEASE / 2 + Duration::from_secs(1));
        if let Reclaimed::Done { recovered, .. } = store.reclaim(&sweep(LEASE)).await.expect("reclaimed") {
            assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [fine]);
            return;
        }
    }
    panic!("no lease was reclaimed");
}

#[tokio::test]
async fn prune_drops_misplaced_quarantines_unreadable() {
    let world = World::new(3).await;
    let store = &world.store;
    for value in ["nan", "inf", "1.5"] {
        let id = insert(store).await.unwrap().id;
        common::settle(store, take(store, 1).await[0].lease, completed("1")).await;
        let job = world.key(format_args!("job:{id}"));
        world.cli(&["HSET", &job, "en", value]);
        assert_eq!(store.prune(9).await.expect(value), 1);
        assert_eq!(world.cli(&["HMGET", &job, "s", "en"]), format!("9\n{value}"));
    }
    let [queued, unreadable, ended] =
        [insert(store).await.unwrap(), insert(store).await.unwrap(), insert(store).await.unwrap()].map(|job| job.id);
    for attempt in take(store, 3).await {
        let outcome = if attempt.lease.job == queued { Outcome::Released } else { completed("1") };
        common::settle(store, attempt.lease, outcome).await;
    }
    world.cli(&["ZADD", &world.key("completed:alpha"), "1", &queued.to_string()]);
    world.cli(&["ZADD", &world.key("failed:alpha"), "1", &ended.to_string()]);
    world.cli(&["HSET", &world.key(format_args!("job:{unreadable}")), "en", "?"]);
    world.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(store.prune(9).await.unwrap(), 4, "each entry is handled once");
    assert_eq!(store.prune(9).await.unwrap(), 0);
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.repaired, stats.quarantined), (2, 4));
    let why = world.cli(&["HGET", &world.key("quarantine"), &unreadable.to_string()]);
    assert!(why.ends_with("completed:alpha a field cannot be read"), "{why}");
    assert!(matches!(store.get(ended).await.unwrap(), JobLookup::Gone { .. }));
    in_order(store).await;
    assert_eq!(take(store, 9).await[0].lease.job, queued);
}

#[tokio::test]
async fn background_repair_continues_in_another_process() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let options = || Options::new().prefix(prefix.clone()).check_every(Duration::from_millis(20));
    let [mut one, two] = [open(&server, options()).await, open(&server, options()).await];
    for round in 1..4 {
        let job = insert(&one).await.unwrap();
        server.cli(&["ZREM", &format!("{{{prefix}}}:queued:alpha"), &job.id.to_string()]);
        let began = std::time::Instant::now();
        while two.stats(&StatsQuery::default()).await.unwrap().repaired < round {
            assert!(began.elapsed() < common::SOON, "no process repairs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(take(&two, 9).await[0].lease.job, job.id);
        // One store holds the role and repairs. When it ends, the other continues.
        // A store dropped in the round before may repair once more and then release the role.
        let role = format!("{{{prefix}}}:role:repair");
        while server.cli(&["HEXISTS", &role, "place"]) != "1" {
            assert!(began.elapsed() < common::SOON, "no process takes the role");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        one = open(&server, options()).await;
        server.cli(&["HSET", &role, "until", "1"]);
    }
}

#[tokio::test]
async fn lost_lease_entry_is_restored_and_reclaimed() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let clock = ManualClock::new();
    let store = open(&server, Options::new().prefix(prefix.clone()).clock(clock.clone())).await;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let job = insert(&store).await.unwrap();
    take(&store, 1).await;
    server.cli(&["DEL", &format!("{{{prefix}}}:leased")]);
    assert_eq!(store.repair().await.unwrap().repaired, 1);
    let mut recovered = Vec::new();
    for _ in 0..4 {
        clock.advance(LEASE / 2);
        if let Reclaimed::Done { recovered: some, .. } = store.reclaim(&sweep(LEASE)).await.unwrap() {
            recovered.extend(some);
        }
    }
    assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [job.id]);
}
