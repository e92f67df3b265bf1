//! The server is away, frozen, or another one than before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStore as _, SharedState as _,
    store::{Hint, Insert, Lookup, Settled, StatsQuery},
};
use async_endpoints_redis::{OpenError, RedisStore};
use async_endpoints_testkit::{
    jobs::{completed, job, key, line},
    server::RedisServer,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};

use crate::common::{HOUR, SOON, back, in_order, insert, open, options, settle, take, unavailable};

#[tokio::test]
async fn everything_is_there_after_the_server_was_killed() {
    let server = RedisServer::with(&[("appendfsync", "always")]);
    let store = open(&server, options()).await;
    let ended = async_endpoints_core::store::NewJob { key: Some(key("k")), ..job("alpha", HOUR) };
    assert!(matches!(store.insert(ended.clone()).await.unwrap(), Insert::Inserted { .. }));
    let taken = take(&store, 1).await.remove(0);
    let report = async_endpoints_core::store::Report { lease: taken.lease, progress: None, logs: vec![line("one")] };
    store.report(&[report]).await.unwrap();
    let done = settle(&store, taken.lease, completed("{\"b\":2}")).await;
    let (running, waiting) = (insert(&store).await.unwrap(), insert(&store).await.unwrap());
    let lease = take(&store, 1).await.remove(0).lease;
    store.put_document("d", None, Bytes::from_static(b"doc"), None).await.unwrap();
    let query = StatsQuery { since_minute: Some(0), cutoffs: Vec::new() };
    let (seen, stats) = (store.get(ended.id).await.unwrap(), store.stats(&query).await.unwrap());

    server.kill();
    unavailable(store.get(ended.id)).await;
    unavailable(insert(&store)).await;
    unavailable(store.probe()).await;
    server.restart();
    back(&store).await;

    assert_eq!(store.get(ended.id).await.unwrap(), seen);
    let again = store.stats(&query).await.unwrap();
    assert_eq!((again.types, again.slots), (stats.types, stats.slots));
    assert_eq!(store.logs(ended.id, 0, 9).await.unwrap()[0].message, "one");
    assert_eq!(store.insert(ended).await.unwrap(), Insert::Existing(seen));
    assert_eq!(store.document("d").await.unwrap().unwrap().bytes, Bytes::from_static(b"doc"));
    assert_eq!(settle(&store, taken.lease, completed("{\"b\":2}")).await, done, "a repeat");
    assert_eq!((lease.job, settle(&store, lease, completed("1")).await), (running.id, done));
    assert_eq!(take(&store, 9).await[0].lease.job, waiting.id);
    in_order(&store).await;
}

/// Submits and works until it is told to stop; the ids that were accepted.
async fn busy(store: Arc<RedisStore>, stop: Arc<AtomicBool>) -> Vec<JobId> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(job) = insert(&store).await {
            accepted.push(job.id);
        }
        let claimed = store.claim(&crate::common::claim_of("alpha", 1)).await;
        for attempt in claimed.map(|claimed| claimed.attempts).unwrap_or_default() {
            drop(store.settle(&[crate::common::settlement(attempt.lease, completed("1"))]).await);
        }
        tokio::task::yield_now().await;
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_half_stored_when_the_server_is_killed_while_all_are_busy() {
    // Else it answers what it has not written, while it waits for a slow disk.
    let server = RedisServer::with(&[("appendfsync", "always")]);
    let store = Arc::new(open(&server, options()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(busy(Arc::clone(&store), Arc::clone(&stop)))).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.kill();
        server.restart();
        back(&store).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for task in tasks {
        accepted.extend(task.await.unwrap());
    }
    assert!(accepted.len() > 100, "{}", accepted.len());
    assert!(store.versions(&accepted).await.unwrap().iter().all(Option::is_some), "nothing is lost");
    in_order(&store).await;
}

#[tokio::test]
async fn a_frozen_server_is_unavailable_and_comes_back() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    server.pause();
    let (written, read) = tokio::join!(unavailable(insert(&store)), unavailable(store.get(kept.id)));
    assert!(written.contains(&format!("redis at 127.0.0.1:{}", server.port())), "{written}");
    assert!(read.contains("may have happened"), "{read}");
    unavailable(take_one(&store)).await;
    server.resume();
    back(&store).await;
    assert!(matches!(store.get(kept.id).await.unwrap(), Lookup::Found(_)));
    in_order(&store).await;
}

async fn take_one(store: &RedisStore) -> async_endpoints_core::store::Result<()> {
    store.claim(&crate::common::claim_of("alpha", 1)).await.map(drop)
}

#[tokio::test]
async fn a_server_that_forgot_all_scripts_is_no_trouble() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    for _ in 0..3 {
        server.cli(&["SCRIPT", "FLUSH"]);
        let job = insert(&store).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH", "SYNC"]);
        assert_eq!(take(&store, 1).await[0].lease.job, job.id);
    }
}

/// The next hint that is one of these.
async fn hear(hints: &mut BoxStream<'static, Hint>, wanted: impl Fn(&Hint) -> bool) -> Hint {
    let hear = async { hints.by_ref().filter(|hint| std::future::ready(wanted(hint))).next().await };
    tokio::time::timeout(SOON, hear).await.expect("it is told in time").expect("the stream goes on")
}

#[tokio::test]
async fn cut_connections_are_back_at_once_and_hints_come_again() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let mut hints = store.hints();
    let work = |hint: &Hint| matches!(hint, Hint::Work(_));
    hear(&mut hints, |hint| *hint == Hint::Lagged).await;
    insert(&store).await.unwrap();
    hear(&mut hints, work).await;
    take(&store, 1).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    // Broken, and there again: something may have been missed both times.
    hear(&mut hints, |hint| *hint == Hint::Lagged).await;
    hear(&mut hints, |hint| *hint == Hint::Lagged).await;
    insert(&store).await.unwrap();
    hear(&mut hints, work).await;
    for _ in 0..5 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        let began = std::time::Instant::now();
        while let Err(error) = insert(&store).await {
            assert!(error.is_transient(), "{error}");
        }
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    in_order(&store).await;
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_waited_for() {
    let server = RedisServer::start();
    let options = options();
    let store = open(&server, options.clone()).await;
    let kept = insert(&store).await.unwrap();
    let lease = take(&store, 1).await.remove(0).lease;
    let other = RedisServer::replica_of(&server);
    other.promote();
    server.follow(&other);
    let why = unavailable(insert(&store)).await;
    assert!(why.contains("replica"), "{why}");
    let refused = options.clone().open(server.url()).await.expect_err("it is a replica");
    assert!(matches!(&refused, OpenError::Unavailable(why) if why.contains("waiting for the primary")), "{refused:?}");
    server.promote();
    back(&store).await;
    assert_eq!((lease.job, settle(&store, lease, completed("1")).await), (kept.id, settled()));
    in_order(&store).await;
    // Whoever goes to the other one finds what it had.
    let there = open(&other, options).await;
    assert!(matches!(there.get(kept.id).await.unwrap(), Lookup::Found(_)));
}

#[tokio::test]
async fn a_replica_that_lost_its_primary_is_waited_for() {
    let server = RedisServer::with(&[("replica-serve-stale-data", "no")]);
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    // Nobody is there.
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let why = unavailable(store.get(kept.id)).await;
    assert!(why.contains("a replica that lost its primary"), "{why}");
    server.promote();
    back(&store).await;
    assert!(matches!(store.get(kept.id).await.unwrap(), Lookup::Found(_)));
    in_order(&store).await;
}

const fn settled() -> Settled {
    Settled::Settled(async_endpoints_core::JobStatus::Completed)
}

#[tokio::test]
async fn a_failover_that_lost_a_claim_ends_the_job_once() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    // A replica that did not hear of the claim becomes the server.
    let behind = RedisServer::replica_of(&server);
    behind.promote();
    let lost = take(&store, 1).await.remove(0).lease;
    server.follow(&behind);
    server.promote();
    back(&store).await;
    let again = take(&store, 1).await.remove(0).lease;
    assert_eq!((lost.job, again.job), (kept.id, kept.id));
    assert_eq!(settle(&store, lost, completed("1")).await, Settled::Lost);
    assert_eq!(settle(&store, again, completed("2")).await, settled());
    in_order(&store).await;
}
