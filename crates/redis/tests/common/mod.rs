//! What the tests share: stores on one real server, each in a namespace of its own.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_endpoints_redis::{Options, RedisStore};
use async_endpoints_testkit::server::RedisServer;

/// A prefix that no other test uses.
pub fn prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Options with a prefix of their own.
pub fn options() -> Options {
    Options::new().prefix(prefix())
}

pub async fn open(server: &RedisServer, options: Options) -> RedisStore {
    options.open(server.url()).await.expect("the server is there")
}

/// A store on a server that the tests of this process share.
pub async fn shared() -> (Arc<RedisServer>, RedisStore) {
    let server = RedisServer::shared();
    let store = open(&server, options()).await;
    (server, store)
}
