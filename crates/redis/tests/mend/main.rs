//! Keys lost, changed and replaced under a store: nobody else is held up, mending puts everything readable back where it
//! belongs, and what cannot be read is put aside.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use async_endpoints_core::{
    JobStore as _, StoreError,
    store::{Reclaimed, StatsQuery},
};
use async_endpoints_redis::Options;
use async_endpoints_testkit::{ManualClock, server::RedisServer};
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

#[tokio::test]
async fn a_key_of_another_type_in_an_indexs_place_is_removed() {
    let mut world = World::new(1).await;
    world.work().await;
    let places = ["queued:alpha", "leased", "delayed:alpha", "completed:beta", "accepted:alpha"];
    for place in places {
        world.cli(&["DEL", &world.key(place)]);
        world.cli(&["SET", &world.key(place), "somebody's"]);
    }
    let found = world.store.stats(&StatsQuery::default()).await.expect_err("it is told");
    assert!(matches!(found, StoreError::Corrupt(_)), "{found}");
    assert!(world.store.mend().await.unwrap().mended >= places.len() as u64);
    in_order(&world.store).await;
    world.check().await;
    world.drain().await;
    world.ended().await;
}

#[tokio::test]
async fn it_mends_by_itself() {
    let (server, prefix) = (RedisServer::shared(), common::prefix());
    let [step, look] = [Duration::from_millis(5), Duration::from_millis(20)];
    let one = open(&server, Options::new().prefix(prefix.clone()).mend_every(step, look)).await;
    let two = open(&server, Options::new().prefix(prefix.clone()).mend_every(step, look)).await;
    for round in 1..4 {
        let job = insert(&one).await.unwrap();
        server.cli(&["ZREM", &format!("{{{prefix}}}:queued:alpha"), &job.id.to_string()]);
        let began = std::time::Instant::now();
        while two.stats(&StatsQuery::default()).await.unwrap().mended < round {
            assert!(began.elapsed() < common::SOON, "nobody mends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(take(&two, 9).await[0].lease.job, job.id);
    }
    let role = server.cli(&["EXISTS", &format!("{{{prefix}}}:role:mend")]);
    assert_eq!(role, "1", "one of them looks, the other waits");
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
