//! A reachable server that refuses calls: out of memory, disk, replicas, time or client slots.

use std::{
    io::Read as _,
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, SharedState as _,
    store::{
        CancelOutcome, Claim, Heartbeat, JobLookup, Lease, ListFilter, Outcome, Page, Reclaimed, Renewed, Report,
        RetryAs, Role, Settled, StatsQuery, WorkerId,
    },
};
use async_endpoints_redis::OpenError;
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, error, line, worker},
    server::RedisServer,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::common::{HOUR, SOON, back, claim_of, in_order, insert, open, options, settle, sweep, take, unavailable};

#[tokio::test]
async fn without_memory_only_running_jobs_go_on() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(insert(&store).await.unwrap().id);
    }
    let running = take(&store, 2).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);

    let report = Report { lease: running[0].lease, progress: None, logs: vec![line("one")] };
    for why in [
        unavailable(insert(&store)).await,
        unavailable(store.report(&[report])).await,
        unavailable(store.probe()).await,
    ] {
        assert!(why.contains("no memory left"), "{why}");
    }
    assert_eq!(settle(&store, running[0].lease, completed("1")).await, Settled::Settled(JobStatus::Completed));
    assert_eq!(store.renew(&heartbeat(), &[running[1].lease], HOUR).await.unwrap(), [Renewed::Held]);
    let more = take(&store, 1).await;
    assert_eq!(more[0].lease.job, jobs[2]);
    assert!(matches!(store.cancel(jobs[3], &error("C")).await.unwrap(), CancelOutcome::Canceled(_)));
    store.reclaim(&sweep(HOUR)).await.unwrap();
    store.prune(9).await.unwrap();
    store.get(jobs[0]).await.unwrap();
    store.versions(&jobs).await.unwrap();
    store.logs(jobs[0], 0, 9).await.unwrap();
    let page = store.list(&ListFilter::default(), &Page { cursor: None, limit: 50 }).await.unwrap();
    assert_eq!(page.jobs.len(), 6);
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts, [2, 0, 2, 1, 0, 1]);
    // A store can still be opened.
    open(&server, options()).await.stats(&StatsQuery::default()).await.unwrap();

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    insert(&store).await.unwrap();
    in_order(&store).await;
}

#[tokio::test]
async fn without_memory_upkeep_goes_on() {
    const LEASE: Duration = Duration::from_secs(30);
    let (server, clock) = (RedisServer::start(), ManualClock::new());
    let store = open(&server, options().clock(clock.clone())).await;
    store.reclaim(&sweep(LEASE)).await.unwrap();
    let [failed, ended, lost, kept] = [(); 4].map(|()| insert(&store));
    let (failed, ended, lost, kept) = tokio::join!(failed, ended, lost, kept);
    let [failed, ended, lost, kept] = [failed, ended, lost, kept].map(|job| job.unwrap().id);
    let claim = Claim { lease: LEASE, ..claim_of("alpha", 9) };
    let leases = store.claim(&claim).await.unwrap().attempts.into_iter().map(|one| one.lease);
    let lease = |id| leases.clone().find(|lease: &Lease| lease.job == id).unwrap();
    settle(&store, lease(failed), Outcome::Failed { error: error("F") }).await;
    settle(&store, lease(ended), completed("1")).await;
    store.renew(&heartbeat(), &[lease(kept)], 4 * HOUR).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);

    for why in [
        unavailable(store.retry(failed, &RetryAs { id: JobId::random(), trace: None })).await,
        unavailable(store.put_document("d", None, Bytes::from_static(b"doc"), None)).await,
    ] {
        assert!(why.contains("no memory left"), "{why}");
    }
    assert!(matches!(store.role("r", Uuid::new_v4(), HOUR).await.unwrap(), Role::Held(_)));
    server.cli(&["ZREM", &server.cli(&["KEYS", "*accepted:alpha"]), &lost.to_string()]);
    assert_eq!(store.repair().await.unwrap().repaired, 1);
    let mut recovered = Vec::new();
    for _ in 0..4 {
        clock.advance(LEASE / 2 + Duration::from_secs(1));
        if let Reclaimed::Done { recovered: some, .. } = store.reclaim(&sweep(LEASE)).await.unwrap() {
            recovered.extend(some.into_iter().map(|one| one.id));
        }
    }
    assert_eq!(recovered, [lost]);
    clock.advance(HOUR);
    assert_eq!(store.prune(9).await.unwrap(), 2);
    assert_eq!(settle(&store, lease(kept), completed("1")).await, Settled::Settled(JobStatus::Completed));
    assert!(matches!(store.get(ended).await.unwrap(), JobLookup::Gone { .. }));

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    in_order(&store).await;
}

fn heartbeat() -> Heartbeat {
    Heartbeat { worker: worker(WorkerId(Uuid::new_v4())), ttl: HOUR }
}

#[tokio::test]
async fn missing_replicas_are_unavailable_until_they_return() {
    let server = RedisServer::start();
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    let lease = take(&store, 1).await.remove(0).lease;
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    for why in [
        unavailable(insert(&store)).await,
        unavailable(store.settle(&[crate::common::settlement(lease, completed("1"))])).await,
        unavailable(store.probe()).await,
    ] {
        assert!(why.contains("too few replicas"), "{why}");
    }
    store.get(kept.id).await.unwrap();
    let _replica = RedisServer::replica_of(&server);
    back(&store).await;
    assert_eq!(settle(&store, lease, completed("1")).await, Settled::Settled(JobStatus::Completed));
    insert(&store).await.unwrap();
    in_order(&store).await;
}

#[tokio::test]
async fn failed_snapshot_is_unavailable_until_one_succeeds() {
    let server = RedisServer::with(&[("save", "3600 1"), ("dbfilename", "dump.rdb")]);
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    // A folder in the way of the snapshot file.
    let dump = server.folder().join("dump.rdb");
    std::fs::create_dir(&dump).unwrap();
    std::fs::write(dump.join("in-the-way"), "").unwrap();
    save(&server, "err");
    for why in [
        unavailable(insert(&store)).await,
        unavailable(store.probe()).await,
        unavailable(store.cancel(kept.id, &error("C"))).await,
    ] {
        assert!(why.contains("cannot write to its disk"), "{why}");
    }
    store.get(kept.id).await.unwrap();
    store.stats(&StatsQuery::default()).await.unwrap();
    std::fs::remove_dir_all(&dump).unwrap();
    save(&server, "ok");
    insert(&store).await.unwrap();
    in_order(&store).await;
}

/// Saves snapshots until one has this result.
fn save(server: &RedisServer, until: &str) {
    let began = Instant::now();
    let wanted = format!("rdb_last_bgsave_status:{until}");
    while !server.cli(&["INFO", "persistence"]).contains(&wanted) {
        server.cli(&["BGSAVE"]);
        assert!(began.elapsed() < 2 * SOON, "{}", server.cli(&["INFO", "persistence"]));
        thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn busy_server_is_unavailable_until_the_script_ends() {
    let server = Arc::new(RedisServer::with(&[("busy-reply-threshold", "50")]));
    let store = open(&server, options()).await;
    let kept = insert(&store).await.unwrap();
    let other = {
        let server = Arc::clone(&server);
        thread::spawn(move || server.cli(&["EVAL", "while true do end", "0"]))
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    for why in [unavailable(insert(&store)).await, unavailable(store.get(kept.id)).await] {
        assert!(why.contains("busy with another script"), "{why}");
    }
    server.cli(&["SCRIPT", "KILL"]);
    other.join().unwrap();
    back(&store).await;
    insert(&store).await.unwrap();
    in_order(&store).await;
}

#[tokio::test]
async fn too_many_clients_is_unavailable_until_some_leave() {
    let server = RedisServer::with(&[("maxclients", "4")]);
    let others: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(("127.0.0.1", server.port())).expect("connected")).collect();
    // The server has counted the clients once it refuses another.
    let mut refused = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("max number of clients"), "{answer}");
    let refused = options().open(server.url()).await.expect_err("no client slot is free");
    assert!(refused.is_transient(), "{refused:?}");
    drop(others);
    let began = Instant::now();
    let store = loop {
        match options().open(server.url()).await {
            Ok(store) => break store,
            Err(error) => assert!(error.is_transient() && began.elapsed() < SOON, "{error}"),
        }
    };
    back(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading_server_is_unavailable_until_loaded() {
    // The server serves clients after each thousand commands that it loads.
    // A killed server with one fsync per second may lose writes while an fsync takes long.
    let settings = [("key-load-delay", "100"), ("appendfsync", "always")];
    let server = Arc::new(RedisServer::with(&settings));
    let options = options();
    let store = open(&server, options.clone()).await;
    for _ in 0..160 {
        futures_util::future::join_all((0..32).map(|_| insert(&store))).await;
    }
    let restarting = {
        let server = Arc::clone(&server);
        thread::spawn(move || server.restart())
    };
    let mut seen = Vec::new();
    while !restarting.is_finished() {
        match options.clone().open(server.url()).await {
            Err(OpenError::Unavailable(why)) => seen.push(why),
            Err(other) => panic!("{other:?}"),
            Ok(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    restarting.join().unwrap();
    assert!(seen.iter().any(|why| why.contains("the server is loading its data")), "{seen:?}");
    back(&store).await;
    assert_eq!(store.stats(&StatsQuery::default()).await.unwrap().types[0].counts[0], 160 * 32);
}

/// The store opens with the last client slot, and renews leases over a second connection later.
#[tokio::test]
async fn leases_are_renewed_once_a_client_slot_is_free() {
    let server = RedisServer::with(&[("maxclients", "4")]);
    let others: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(("127.0.0.1", server.port())).expect("connected")).collect();
    let began = Instant::now();
    let store = loop {
        match options().open(server.url()).await {
            Ok(store) => break store,
            Err(error) => assert!(error.is_transient() && began.elapsed() < SOON, "{error}"),
        }
    };
    unavailable(store.renew(&heartbeat(), &[], HOUR)).await;
    drop(others);
    let began = Instant::now();
    while let Err(error) = store.renew(&heartbeat(), &[], HOUR).await {
        assert!(error.is_transient() && began.elapsed() < SOON, "{error}");
    }
}
