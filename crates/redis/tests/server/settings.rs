//! Required settings of a server, and the errors of a server without them.

use std::time::{Duration, Instant};

use async_endpoints_core::{JobStore as _, StoreError};
use async_endpoints_redis::{OpenError, Options, RedisStore};
use async_endpoints_testkit::{jobs::completed, server::RedisServer};

use crate::common::{SOON, insert, open, options, prefix};

fn refused(opened: Result<async_endpoints_redis::RedisStore, OpenError>) -> String {
    match opened {
        Err(OpenError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn server_without_aof_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("appendonly", "no")]);
    let why = refused(options().open(server.url()).await);
    assert!(why.contains("no append-only file") && why.contains("set appendonly yes"), "{why}");
    let store = open(&server, options().allow_volatile(true)).await;
    assert!(store.volatile().is_some_and(|why| why.contains("appendonly")));
    insert(&store).await.unwrap();
}

#[tokio::test]
async fn server_that_evicts_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("maxmemory-policy", "allkeys-lru")]);
    let why = refused(options().open(server.url()).await);
    assert!(why.contains("maxmemory-policy is allkeys-lru") && why.contains("set it to noeviction"), "{why}");
    let store = open(&server, options().allow_volatile(true)).await;
    assert!(store.volatile().is_some_and(|why| why.contains("allkeys-lru")));
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(open(&server, options()).await.volatile(), None);
}

/// Prunes until a call fails. Returns its error.
async fn failed_prune(store: &RedisStore) -> StoreError {
    let began = Instant::now();
    loop {
        if let Err(error) = store.prune(9).await {
            return error;
        }
        assert!(began.elapsed() < SOON, "no prune failed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Prunes over several checks of the settings, without an error.
async fn prune_quietly(store: &RedisStore) {
    for _ in 0..3 {
        tokio::time::sleep(CHECK).await;
        store.prune(9).await.expect("reported only once");
    }
}

const CHECK: Duration = Duration::from_millis(20);

#[tokio::test]
async fn worse_settings_are_reported_and_refused_on_open() {
    let server = RedisServer::start();
    let store = open(&server, options().check_every(CHECK)).await;
    prune_quietly(&store).await;
    for (setting, bad, good, why) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru"),
        ("appendonly", "no", "yes", "keeps no append-only file"),
    ] {
        server.cli(&["CONFIG", "SET", setting, bad]);
        let error = failed_prune(&store).await;
        assert!(error.to_string().contains(why) && !error.is_transient(), "{error}");
        assert!(store.volatile().is_some_and(|volatile| volatile.contains(why)));
        prune_quietly(&store).await;
        insert(&store).await.unwrap();
        assert!(refused(options().open(server.url()).await).contains(why));
        server.cli(&["CONFIG", "SET", setting, good]);
        let began = Instant::now();
        while store.volatile().is_some() {
            store.prune(9).await.unwrap();
            assert!(began.elapsed() < SOON, "the store is still volatile");
            tokio::time::sleep(CHECK).await;
        }
    }
}

#[tokio::test]
async fn deleted_data_is_reported_once_by_each_store() {
    let (server, prefix) = (RedisServer::with(&[("appendfsync", "always")]), prefix());
    let mine = || Options::new().prefix(prefix.clone());
    let stores = [open(&server, mine()).await, open(&server, mine()).await];
    for store in &stores {
        store.prune(9).await.unwrap();
    }
    let lost = insert(&stores[0]).await.unwrap();
    server.cli(&["FLUSHALL"]);
    for store in &stores {
        let error = store.prune(9).await.expect_err("the data was deleted");
        let StoreError::Corrupt(why) = &error else { panic!("{error:?}") };
        assert!(why.contains("FLUSHALL") && why.contains(&format!("{{{prefix}}}:")), "{why}");
        store.prune(9).await.expect("reported only once");
    }
    // New jobs are stored as usual, and so is the format.
    let kept = insert(&stores[1]).await.unwrap();
    assert_eq!(stores[0].versions(&[lost.id, kept.id]).await.unwrap(), [None, Some(1)]);
    assert_eq!(server.cli(&["HGET", &format!("{{{prefix}}}:meta"), "format"]), "1");
    crate::common::in_order(&stores[0]).await;
    // A restart keeps the data.
    server.restart();
    crate::common::back(&stores[0]).await;
    stores[0].prune(9).await.unwrap();
}

/// A cluster node and its id.
fn node() -> (RedisServer, String) {
    let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let node = RedisServer::with(&[("cluster-enabled", "yes"), ("cluster-port", &bus)]);
    let id = node.cli(&["CLUSTER", "MYID"]);
    (node, id)
}

#[tokio::test]
async fn only_the_cluster_node_with_the_keys_is_accepted() {
    let [(owner, id), (other, other_id)] = [node(), node()];
    let before = options().open(owner.url()).await.expect_err("no node has any slots");
    assert!(before.is_transient() && before.to_string().contains("the cluster is not ready"), "{before}");
    assert_eq!(owner.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    let bus = |node: &RedisServer| node.cli(&["CONFIG", "GET", "cluster-port"]).lines().nth(1).unwrap().to_owned();
    assert_eq!(owner.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), &bus(&other)]), "OK");
    let began = Instant::now();
    // Both nodes have to know the state.
    while [&owner, &other].iter().any(|node| !node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")) {
        assert!(began.elapsed() < 4 * SOON, "{} {id} {other_id}", other.cli(&["CLUSTER", "NODES"]));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let why = refused(options().open(other.url()).await);
    assert!(why.contains("cluster node does not have the keys"), "{why}");
    assert!(why.contains(&format!("127.0.0.1:{}", owner.port())), "the error has no address of the other node: {why}");
    let store = open(&owner, options()).await;
    let job = insert(&store).await.unwrap();
    let taken = crate::common::take(&store, 1).await.remove(0);
    assert_eq!(taken.lease.job, job.id);
    crate::common::settle(&store, taken.lease, completed("1")).await;
    crate::common::in_order(&store).await;
}

#[tokio::test]
async fn later_format_is_refused() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let mine = Options::new().prefix(prefix.clone());
    drop(open(&server, mine.clone()).await);
    server.cli(&["HSET", &format!("{{{prefix}}}:meta"), "format", "7"]);
    let newer = mine.open(server.url()).await.expect_err("the format is newer");
    assert!(matches!(&newer, OpenError::Newer { found: 7, known: 1, .. }), "{newer:?}");
    let text = newer.to_string();
    assert!(text.contains(&format!("127.0.0.1:{}", server.port())) && text.contains("format 7"), "{text}");
    assert!(!newer.is_transient());
}

#[tokio::test]
async fn databases_and_prefixes_are_separate() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let third = Options::new().prefix(prefix.clone()).open(format!("{}/3", server.url())).await.unwrap();
    let stores = [third, open(&server, Options::new().prefix(prefix.clone())).await, open(&server, options()).await];
    let mut jobs = Vec::new();
    for store in &stores {
        jobs.push(insert(store).await.unwrap().id);
    }
    for (store, mine) in stores.iter().zip(&jobs) {
        let versions = store.versions(&jobs).await.unwrap();
        assert_eq!(versions.iter().flatten().count(), 1);
        assert_eq!(crate::common::take(store, 9).await[0].lease.job, *mine);
        assert_eq!(store.repair().await.unwrap().checked, 6, "the job once and five index entries");
    }
    assert_eq!(server.cli(&["-n", "3", "EXISTS", &format!("{{{prefix}}}:job:{}", jobs[0])]), "1");
}

#[tokio::test]
async fn invalid_prefix_is_refused() {
    let server = RedisServer::shared();
    for bad in ["", "a b", "a{b", "a:b", "ä"] {
        let why = refused(Options::new().prefix(bad).open(server.url()).await);
        assert!(why.contains(&format!("{bad:?}")) && why.contains("invalid prefix"), "{why}");
    }
}

#[tokio::test]
async fn invalid_address_is_refused_and_not_shown() {
    for bad in ["", "secret-word", "http://user:secret-word@host/", "redis://user:secret-word@host:port/x", "redis://"]
    {
        let error = options().open(bad).await.expect_err("the address is invalid");
        assert!(matches!(error, OpenError::Refused(_)), "{bad}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("secret-word"), "{error:?}");
    }
    let nowhere = options().open("redis://127.0.0.1:1/").await.expect_err("no server listens");
    assert!(nowhere.is_transient(), "{nowhere:?}");
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn tls_needs_its_feature() {
    let why = refused(options().open("rediss://127.0.0.1:1/").await);
    assert!(why.contains("TLS is not built in") || why.contains("rediss"), "{why}");
    let why = refused(options().root_certificate("x").open("redis://127.0.0.1:1/").await);
    assert!(why.contains("feature `tls`"), "{why}");
}
