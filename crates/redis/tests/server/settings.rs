//! What a server must be like, and what is told of one that is not.

use async_endpoints_core::JobStore as _;
use async_endpoints_redis::{OpenError, Options};
use async_endpoints_testkit::server::RedisServer;

use crate::common::{insert, open, options, prefix};

fn refused(opened: Result<async_endpoints_redis::RedisStore, OpenError>) -> String {
    match opened {
        Err(OpenError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("appendonly", "no")]);
    let why = refused(options().open(server.url()).await);
    assert!(why.contains("no append-only file") && why.contains("set appendonly yes"), "{why}");
    let store = open(&server, options().allow_volatile(true)).await;
    assert!(store.volatile().is_some_and(|why| why.contains("appendonly")));
    insert(&store).await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("maxmemory-policy", "allkeys-lru")]);
    let why = refused(options().open(server.url()).await);
    assert!(why.contains("maxmemory-policy is allkeys-lru") && why.contains("set it to noeviction"), "{why}");
    let store = open(&server, options().allow_volatile(true)).await;
    assert!(store.volatile().is_some_and(|why| why.contains("allkeys-lru")));
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(open(&server, options()).await.volatile(), None);
}

#[tokio::test]
async fn a_later_format_is_refused_by_name() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let mine = Options::new().prefix(prefix.clone());
    drop(open(&server, mine.clone()).await);
    server.cli(&["HSET", &format!("{{{prefix}}}:meta"), "format", "7"]);
    let newer = mine.open(server.url()).await.expect_err("it is newer");
    assert!(matches!(&newer, OpenError::Newer { found: 7, known: 1, .. }), "{newer:?}");
    let text = newer.to_string();
    assert!(text.contains(&format!("127.0.0.1:{}", server.port())) && text.contains("format 7"), "{text}");
    assert!(!newer.is_transient());
}

#[tokio::test]
async fn databases_and_prefixes_do_not_see_each_other() {
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
        assert_eq!(store.mend().await.unwrap().looked_at, 6, "the job, and it in three indexes, in two of them twice");
    }
    assert_eq!(server.cli(&["-n", "3", "EXISTS", &format!("{{{prefix}}}:job:{}", jobs[0])]), "1");
}

#[tokio::test]
async fn a_bad_prefix_is_refused() {
    let server = RedisServer::shared();
    for bad in ["", "a b", "a{b", "a:b", "ä"] {
        let why = refused(Options::new().prefix(bad).open(server.url()).await);
        assert!(why.contains(&format!("{bad:?}")) && why.contains("no prefix"), "{why}");
    }
}

#[tokio::test]
async fn nonsense_is_refused_and_not_repeated() {
    for bad in ["", "secret-word", "http://user:secret-word@host/", "redis://user:secret-word@host:port/x", "redis://"]
    {
        let error = options().open(bad).await.expect_err("it is no address");
        assert!(matches!(error, OpenError::Refused(_)), "{bad}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("secret-word"), "{error:?}");
    }
    let nowhere = options().open("redis://127.0.0.1:1/").await.expect_err("nobody is there");
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
