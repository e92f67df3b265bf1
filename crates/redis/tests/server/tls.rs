//! Over TLS.

use async_endpoints_core::JobStore as _;
use async_endpoints_redis::OpenError;
use async_endpoints_testkit::server::RedisServer;

use crate::common::{back, insert, options, unavailable};

#[tokio::test]
async fn it_works_with_the_authority_that_signed() {
    let server = RedisServer::tls();
    let root = std::fs::read(server.ca().expect("it has one")).unwrap();
    let store = options().root_certificate(root).open(server.url()).await.unwrap();
    insert(&store).await.unwrap();
    server.kill();
    unavailable(store.probe()).await;
    server.restart();
    back(&store).await;
    let mut hints = store.hints();
    // Heard if it listens again already; else it is told that it missed something once it does.
    let job = insert(&store).await.unwrap();
    store.cancel(job.id, &async_endpoints_testkit::jobs::error("X")).await.unwrap();
    let told = tokio::time::timeout(crate::common::SOON, futures_util::StreamExt::next(&mut hints)).await;
    assert!(matches!(told, Ok(Some(_))), "it listens: {told:?}");
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_talked_to() {
    let (server, other) = (RedisServer::tls(), RedisServer::tls());
    let of_another = std::fs::read(other.ca().expect("it has one")).unwrap();
    for options in [options(), options().root_certificate(of_another)] {
        let refused = options.open(server.url()).await.expect_err("it is unknown");
        assert!(matches!(refused, OpenError::Refused(_)), "{refused:?}");
        assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");
    }
    let bad = options().root_certificate("no certificate").open(server.url()).await;
    assert!(matches!(bad, Err(OpenError::Refused(_))), "{bad:?}");
    // Nor is it spoken to in clear, where it speaks TLS.
    let plain = options().open(server.url().replace("rediss", "redis")).await;
    assert!(plain.is_err(), "{plain:?}");
}
