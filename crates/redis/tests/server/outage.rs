//! A server that is killed, frozen, cut off, or replaced by another.

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
async fn killed_server_loses_nothing_with_fsync_always() {
    let server = RedisServer::with(&[("appendfsync", "always")]);
    let store = open(&server, options()).await;
    let ended = job("alpha", HOUR).key(key("k"));
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
    assert_eq!(settle(&store, taken.lease, completed("{\"b\":2}")).await, done, "repeated");
    assert_eq!((lease.job, settle(&store, lease, completed("1")).await), (running.id, done));
    assert_eq!(take(&store, 9).await[0].lease.job, waiting.id);
    in_order(&store).await;
}

/// An accepted job.
struct Accepted {
    id: JobId,
    /// How often the server had been killed; `None` if that changed during the call.
    life: Option<usize>,
    at: Instant,
}

/// Submits and runs jobs until `stop`. Returns the accepted jobs in order.
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

/// Runs eight clients and kills the server after each of `lives`. Returns each client's accepted jobs, and the times of the
/// kills.
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
    let mut accepted = Vec::new();
    for client in clients {
        accepted.push(client.await.unwrap());
    }
    (accepted, kills)
}

/// While Redis waits for a slow disk, at most 2 seconds, it answers before it writes. A kill may lose the last answers only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_loses_last_writes_with_everysec() {
    const UNWRITTEN: Duration = Duration::from_millis(2500);
    let server = RedisServer::with(&[("appendfsync", "everysec")]);
    let store = Arc::new(open(&server, options()).await);
    let lives = [UNWRITTEN + Duration::from_millis(500), Duration::from_millis(300)];
    let (clients, kills) = through_kills(&server, &store, &lives).await;
    in_order(&store).await;
    let mut old = 0;
    for accepted in clients {
        let ids: Vec<JobId> = accepted.iter().map(|job| job.id).collect();
        let there = store.versions(&ids).await.unwrap();
        let mut ended = vec![false; lives.len() + 1];
        for (job, version) in accepted.iter().zip(there) {
            let Some(life) = job.life else { continue };
            let was_killed = kills.get(life);
            let is_old = was_killed.is_none_or(|kill| *kill - job.at > UNWRITTEN);
            old += usize::from(is_old && was_killed.is_some());
            assert!(version.is_some() || !is_old, "{} was accepted long before the kill", job.id);
            assert!(version.is_none() || !ended[life], "{} is there, but an earlier job is lost", job.id);
            ended[life] |= version.is_none();
        }
    }
    assert!(old > 100, "only {old} jobs were accepted long before a kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_stores_no_job_partly() {
    // With everysec the server may answer before it writes.
    let server = RedisServer::with(&[("appendfsync", "always")]);
    let store = Arc::new(open(&server, options()).await);
    let (accepted, _) = through_kills(&server, &store, &[Duration::from_millis(200); 3]).await;
    let accepted: Vec<JobId> = accepted.iter().flatten().map(|job| job.id).collect();
    assert!(accepted.len() > 100, "{}", accepted.len());
    assert!(store.versions(&accepted).await.unwrap().iter().all(Option::is_some), "a job is lost");
    in_order(&store).await;
}

#[tokio::test]
async fn frozen_server_is_unavailable_until_it_resumes() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    server.pause();
    let (written, read) = tokio::join!(unavailable(insert(&store)), unavailable(store.get(kept.id)));
    assert!(written.contains(&format!("redis at 127.0.0.1:{}", server.port())), "{written}");
    assert!(read.contains("may have taken effect"), "{read}");
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
async fn flushed_scripts_are_sent_again() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    for _ in 0..3 {
        server.cli(&["SCRIPT", "FLUSH"]);
        let job = insert(&store).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH", "SYNC"]);
        assert_eq!(take(&store, 1).await[0].lease.job, job.id);
    }
}

/// Waits for a hint that `wanted` accepts.
async fn hear(hints: &mut BoxStream<'static, Hint>, wanted: impl Fn(&Hint) -> bool) -> Hint {
    let hear = async { hints.by_ref().filter(|hint| std::future::ready(wanted(hint))).next().await };
    tokio::time::timeout(SOON, hear).await.expect("a hint in time").expect("the stream ended")
}

#[tokio::test]
async fn cut_connections_are_made_again_at_once() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let mut hints = store.hints();
    let work = |hint: &Hint| matches!(hint, Hint::Work(_));
    hear(&mut hints, |hint| *hint == Hint::Lagged).await;
    insert(&store).await.unwrap();
    hear(&mut hints, work).await;
    take(&store, 1).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    // Once when the subscription breaks, and once when the store has subscribed again.
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
async fn demoted_primary_is_unavailable_until_promoted() {
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
    let refused = options.clone().open(server.url()).await.expect_err("the server is a replica");
    assert!(matches!(&refused, OpenError::Unavailable(why) if why.contains("waiting for the primary")), "{refused:?}");
    server.promote();
    back(&store).await;
    assert_eq!((lease.job, settle(&store, lease, completed("1")).await), (kept.id, settled()));
    in_order(&store).await;
    // The other server has the job as well.
    let there = open(&other, options).await;
    assert!(matches!(there.get(kept.id).await.unwrap(), JobLookup::Found(_)));
}

#[tokio::test]
async fn replica_without_primary_is_unavailable() {
    let server = RedisServer::with(&[("replica-serve-stale-data", "no")]);
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    // No server listens there.
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
async fn failover_that_loses_a_claim_ends_the_job_once() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    // A replica without the claim becomes the primary.
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
