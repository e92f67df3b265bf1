//! Connections over TLS.

use async_endpoints_core::JobStore as _;
use async_endpoints_redis::OpenError;
use async_endpoints_testkit::server::RedisServer;

use crate::common::{back, insert, options, unavailable};

#[tokio::test]
async fn trusted_authority_is_accepted() {
    let server = RedisServer::tls();
    let root = std::fs::read(server.ca().expect("a root certificate")).unwrap();
    let store = options().root_certificate(root).open(server.url()).await.unwrap();
    insert(&store).await.unwrap();
    server.kill();
    unavailable(store.probe()).await;
    server.restart();
    back(&store).await;
    let mut hints = store.hints();
    // The stream returns the hint, or that hints were lost if it subscribes again only now.
    let job = insert(&store).await.unwrap();
    store.cancel(job.id, &async_endpoints_testkit::jobs::error("X")).await.unwrap();
    let hint = tokio::time::timeout(crate::common::SOON, futures_util::StreamExt::next(&mut hints)).await;
    assert!(matches!(hint, Ok(Some(_))), "{hint:?}");
}

#[tokio::test]
async fn untrusted_server_is_refused() {
    let (server, other) = (RedisServer::tls(), RedisServer::tls());
    let other_root = std::fs::read(other.ca().expect("a root certificate")).unwrap();
    for options in [options(), options().root_certificate(other_root)] {
        let refused = options.open(server.url()).await.expect_err("the authority is unknown");
        assert!(matches!(refused, OpenError::Refused(_)), "{refused:?}");
        assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");
    }
    let bad = options().root_certificate("no certificate").open(server.url()).await;
    assert!(matches!(bad, Err(OpenError::Refused(_))), "{bad:?}");
    // A connection without TLS fails as well.
    let plain = options().open(server.url().replace("rediss", "redis")).await;
    assert!(plain.is_err(), "{plain:?}");
}
