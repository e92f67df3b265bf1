//! Keys lost, changed and replaced under a store: nobody else is held up, mending puts everything readable back where it
//! belongs, and what cannot be read is put aside.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, StoreError,
    store::{Lookup, NewJob, Outcome, Reclaimed, RetryAs, Settled, StatsQuery},
};
use async_endpoints_redis::Options;
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, job},
    server::RedisServer,
};
use common::{HOUR, in_order, insert, open, sweep, take};
use rand::Rng as _;
use world::{LEASE, World};

fn seed() -> u64 {
    let asked = std::env::var("TESTKIT_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

async fn damaged(seed: u64) -> World {
    println!("TESTKIT_SEED={seed}");
    let mut world = World::new(seed).await;
    world.work().await;
    in_order(&world.store).await;
    for _ in 0..20 {
        let what = world.damage();
        println!("{what}");
    }
    world
}

#[tokio::test]
async fn mending_puts_everything_right() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        let mended = world.store.mend().await.unwrap();
        println!("{mended:?}");
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
async fn without_mending_nobody_is_held_up_either() {
    let first = seed();
    for seed in first..first + 4 {
        let mut world = damaged(seed).await;
        world.survey().await;
        world.drain().await;
        world.survey().await;
        // All others ended, and new ones run.
        let new = insert(&world.store).await.unwrap();
        let taken = take(&world.store, 9).await;
        assert!(taken.iter().any(|one| one.lease.job == new.id), "{taken:?}");
        world.clock.advance(HOUR * 3);
        for _ in 0..3 {
            world.store.prune(100).await.expect("pruning");
        }
        world.survey().await;
        world.store.mend().await.unwrap();
        in_order(&world.store).await;
    }
}

/// Keys that many jobs share, and what was written there by somebody else.
const SHARED: [&str; 16] = [
    "queued:alpha",
    "scheduled:alpha",
    "delayed:alpha",
    "running:alpha",
    "completed:alpha",
    "failed:alpha",
    "canceled:alpha",
    "accepted:alpha",
    "completed:beta",
    "leased",
    "types",
    "meta",
    "beats",
    "workers",
    "quarantine",
    "minute",
];

fn overwrite(world: &World, place: &str) {
    let minute = world.cli(&["KEYS", &world.key("minute:*")]);
    let key = if place == "minute" { minute.lines().next().unwrap().to_owned() } else { world.key(place) };
    world.cli(&["DEL", &key]);
    world.cli(&["SET", &key, "somebody's"]);
}

#[tokio::test]
async fn what_stands_in_a_shared_keys_place_is_put_aside() {
    let mut world = World::new(1).await;
    world.work().await;
    SHARED.iter().for_each(|place| overwrite(&world, place));
    let found = world.store.stats(&StatsQuery::default()).await.expect_err("it is told");
    assert!(matches!(found, StoreError::Corrupt(_)), "{found}");
    assert!(world.store.mend().await.unwrap().mended > 0);
    assert_eq!(world.cli(&["GET", &world.key("aside:leased")]), "somebody's");
    in_order(&world.store).await;
    world.check().await;
    world.drain().await;
    world.ended().await;
}

/// Everything that is stored, in a few letters.
fn digest(world: &World) -> String {
    const SCRIPT: &str = "local keys, all = redis.call('KEYS', ARGV[1]), {} table.sort(keys) \
        for at, key in ipairs(keys) do all[at] = key .. redis.call('DUMP', key) end \
        return redis.sha1hex(table.concat(all))";
    world.cli(&["EVAL", SCRIPT, "0", &world.key("*")])
}

/// Refused as a whole, if it is.
async fn whole<T>(world: &World, place: &str, call: impl Future<Output = Result<T, StoreError>>) -> bool {
    overwrite(world, place);
    let before = digest(world);
    let done = call.await;
    assert!(done.is_ok() || digest(world) == before, "{place}: {:?}", done.err());
    done.is_ok()
}

#[tokio::test]
async fn no_call_leaves_a_half_when_a_shared_key_is_of_another_type() {
    for place in SHARED {
        let mut world = World::new(2).await;
        world.work().await;
        let (world, store, claim) = (&world, &world.store, common::claim_of("alpha", 3));
        let taken = store.claim(&claim).await.unwrap().attempts;
        let failed = Outcome::Failed { error: error("F") };
        let ends = [common::settlement(taken[0].lease, completed("1")), common::settlement(taken[1].lease, failed)];
        let retry = RetryAs { id: JobId::random(), trace: None };
        let waits = insert(store).await.unwrap();
        // Those that go on, whatever happens.
        let insert = async |delay| store.insert(NewJob { delay, ..job("alpha", HOUR) }).await;
        let inserts = async { tokio::try_join!(insert(Duration::ZERO), insert(HOUR)) };
        assert!(whole(world, place, inserts).await, "{place}");
        assert!(whole(world, place, store.settle(&ends)).await, "{place}");
        // And those that may be refused.
        whole(world, place, store.cancel(waits.id, &error("C"))).await;
        whole(world, place, store.claim(&claim)).await;
        whole(world, place, store.retry(taken[1].lease.job, &retry)).await;
        whole(world, place, store.reclaim(&sweep(LEASE))).await;
        whole(world, place, store.prune(9)).await;
        store.mend().await.unwrap();
        in_order(store).await;
    }
}

/// A script is not rolled back: what it stumbles over must be found before its first write.
#[tokio::test]
async fn a_job_that_cannot_be_read_leaves_no_half_of_the_others() {
    for value in ["nan", "inf", "1e999", "1.5"] {
        let world = World::new(4).await;
        let store = &world.store;
        let break_it =
            |id: JobId, field: &str| world.cli(&["HSET", &world.key(format_args!("job:{id}")), field, value]);
        insert(store).await.unwrap();
        insert(store).await.unwrap();
        let attempts = take(store, 2).await;
        break_it(attempts[1].lease.job, "n");
        let ends = [0, 1].map(|at| common::settlement(attempts[at].lease, completed("1")));
        let answers = store.settle(&ends).await.unwrap();
        assert_eq!(answers[0], Settled::Settled(JobStatus::Completed), "{value}");
        let Lookup::Found(job) = store.get(ends[0].lease.job).await.unwrap() else { panic!("it is there") };
        assert_eq!(job.result.as_deref(), Some(b"1".as_slice()), "{value}");
        for field in ["n", "a", "rs"] {
            let (broken, fine) = (insert(store).await.unwrap().id, insert(store).await.unwrap().id);
            break_it(broken, field);
            if field != "n" {
                // Without a version nothing happened to it yet.
                world.cli(&["HSET", &world.key(format_args!("job:{broken}")), "n", "1"]);
            }
            let taken = take(store, 9).await;
            assert_eq!(taken.iter().map(|attempt| attempt.lease.job).collect::<Vec<_>>(), [fine], "{field} {value}");
        }
        let waits = insert(store).await.unwrap().id;
        break_it(waits, "w");
        let before = digest(&world);
        store.cancel(waits, &error("C")).await.expect_err("it cannot be read");
        assert_eq!(digest(&world), before, "and is as it was");
        store.mend().await.unwrap();
        in_order(store).await;
    }
}

#[tokio::test]
async fn pruning_drops_what_does_not_belong_and_puts_aside_what_cannot_be_read() {
    let world = World::new(3).await;
    let store = &world.store;
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
    assert_eq!(store.prune(9).await.unwrap(), 4, "each entry is dealt with once");
    assert_eq!(store.prune(9).await.unwrap(), 0);
    let stats = store.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.mended, stats.quarantined), (2, 1));
    let why = world.cli(&["HGET", &world.key("quarantine"), &unreadable.to_string()]);
    assert!(why.ends_with("completed:alpha a field cannot be read"), "{why}");
    assert!(matches!(store.get(ended).await.unwrap(), Lookup::Gone { .. }));
    in_order(store).await;
    assert_eq!(take(store, 9).await[0].lease.job, queued);
}

#[tokio::test]
async fn it_mends_by_itself_and_goes_on_where_another_process_came_to() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let options = || Options::new().prefix(prefix.clone()).look_every(Duration::from_millis(20));
    let [mut one, two] = [open(&server, options()).await, open(&server, options()).await];
    for round in 1..4 {
        let job = insert(&one).await.unwrap();
        server.cli(&["ZREM", &format!("{{{prefix}}}:queued:alpha"), &job.id.to_string()]);
        let began = std::time::Instant::now();
        while two.stats(&StatsQuery::default()).await.unwrap().mended < round {
            assert!(began.elapsed() < common::SOON, "nobody mends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(take(&two, 9).await[0].lease.job, job.id);
        // One of them looks, the other waits; if that one ends, the other goes on.
        let role = format!("{{{prefix}}}:role:mend");
        assert_eq!(server.cli(&["HEXISTS", &role, "place"]), "1");
        one = open(&server, options()).await;
        server.cli(&["HSET", &role, "until", "1"]);
    }
}

#[tokio::test]
async fn a_lease_that_nobody_knows_of_is_taken_up_again() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let clock = ManualClock::new();
    let store = open(&server, Options::new().prefix(prefix.clone()).clock(clock.clone())).await;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let job = insert(&store).await.unwrap();
    take(&store, 1).await;
    server.cli(&["DEL", &format!("{{{prefix}}}:leased")]);
    assert_eq!(store.mend().await.unwrap().mended, 1);
    let mut recovered = Vec::new();
    for _ in 0..4 {
        clock.advance(LEASE / 2);
        if let Reclaimed::Done { recovered: some, .. } = store.reclaim(&sweep(LEASE)).await.unwrap() {
            recovered.extend(some);
        }
    }
    assert_eq!(recovered.iter().map(|one| one.id).collect::<Vec<_>>(), [job.id]);
}
