//! The server is away, frozen, or another one than before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobStore as _, SharedState as _,
    store::{Hint, InsertOutcome, JobLookup, Settled, StatsQuery},
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
    assert!(matches!(store.insert(ended.clone()).await.unwrap(), InsertOutcome::Inserted { .. }));
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
    assert_eq!((again.types, again.minutes), (stats.types, stats.minutes));
    assert_eq!(store.logs(ended.id, 0, 9).await.unwrap()[0].message, "one");
    assert_eq!(store.insert(ended).await.unwrap(), InsertOutcome::Existing(seen));
    assert_eq!(store.document("d").await.unwrap().unwrap().bytes, Bytes::from_static(b"doc"));
    assert_eq!(settle(&store, taken.lease, completed("{\"b\":2}")).await, done, "a repeat");
    assert_eq!((lease.job, settle(&store, lease, completed("1")).await), (running.id, done));
    assert_eq!(take(&store, 9).await[0].lease.job, waiting.id);
    in_order(&store).await;
}

/// A job whose acceptance was answered: in which of the server's lives, unless it died meanwhile, and when.
struct Accepted {
    id: JobId,
    life: Option<usize>,
    at: Instant,
}

/// Submits and works until it is told to stop; what was accepted, in order.
async fn busy(store: Arc<RedisStore>, life: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let before = life.load(Ordering::SeqCst);
        if let Ok(job) = insert(&store).await {
            let life = Some(before).filter(|before| *before == life.load(Ordering::SeqCst));
            accepted.push(Accepted { id: job.id, life, at: Instant::now() });
        }
        let claimed = store.claim(&crate::common::claim_of("alpha", 1)).await;
        for attempt in claimed.map(|claimed| claimed.attempts).unwrap_or_default() {
            drop(store.settle(&[crate::common::settlement(attempt.lease, completed("1"))]).await);
        }
        tokio::task::yield_now().await;
    }
    accepted
}

/// Eight clients are busy while the server is killed at the end of each of these lives; what each was told, and when it was
/// killed.
async fn through_kills(
    server: &RedisServer,
    store: &Arc<RedisStore>,
    lives: &[Duration],
) -> (Vec<Vec<Accepted>>, Vec<Instant>) {
    let (life, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let client = || tokio::spawn(busy(Arc::clone(store), Arc::clone(&life), Arc::clone(&stop)));
    let clients: Vec<_> = (0..8).map(|_| client()).collect();
    let mut kills = Vec::new();
    for lasts in lives {
        tokio::time::sleep(*lasts).await;
        kills.push(Instant::now());
        server.kill();
        life.fetch_add(1, Ordering::SeqCst);
        server.restart();
        back(store).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for client in clients {
        told.push(client.await.unwrap());
    }
    (told, kills)
}

/// It answers what it has not written while it waits for a slow disk, for 2 seconds at most: only the end of what a client
/// was told may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_writes_every_second_loses_an_end_at_most_when_it_is_killed() {
    const UNWRITTEN: Duration = Duration::from_millis(2500);
    let server = RedisServer::with(&[("appendfsync", "everysec")]);
    let store = Arc::new(open(&server, options()).await);
    let lives = [UNWRITTEN + Duration::from_millis(500), Duration::from_millis(300)];
    let (told, kills) = through_kills(&server, &store, &lives).await;
    in_order(&store).await;
    let mut old = 0;
    for accepted in told {
        let ids: Vec<JobId> = accepted.iter().map(|job| job.id).collect();
        let there = store.versions(&ids).await.unwrap();
        let mut ended = vec![false; lives.len() + 1];
        for (job, version) in accepted.iter().zip(there) {
            let Some(life) = job.life else { continue };
            let was_killed = kills.get(life);
            let is_old = was_killed.is_none_or(|kill| *kill - job.at > UNWRITTEN);
            old += usize::from(is_old && was_killed.is_some());
            assert!(version.is_some() || !is_old, "{} was told long ago", job.id);
            assert!(version.is_none() || !ended[life], "{} is there, and one before it is lost", job.id);
            ended[life] |= version.is_none();
        }
    }
    assert!(old > 100, "{old} were told long before a kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_half_stored_when_the_server_is_killed_while_all_are_busy() {
    // Else it answers what it has not written, while it waits for a slow disk.
    let server = RedisServer::with(&[("appendfsync", "always")]);
    let store = Arc::new(open(&server, options()).await);
    let (accepted, _) = through_kills(&server, &store, &[Duration::from_millis(200); 3]).await;
    let accepted: Vec<JobId> = accepted.iter().flatten().map(|job| job.id).collect();
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
    assert!(matches!(store.get(kept.id).await.unwrap(), JobLookup::Found(_)));
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
    assert!(matches!(there.get(kept.id).await.unwrap(), JobLookup::Found(_)));
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
    assert!(matches!(store.get(kept.id).await.unwrap(), JobLookup::Found(_)));
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
