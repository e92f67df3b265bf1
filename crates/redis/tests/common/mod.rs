//! Helpers of all tests: stores on one real server, each in a namespace of its own.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints_core::{
    StoreError,
    store::{
        Attempt, Claim, InsertOutcome, JobStore as _, Lease, LeaseToken, NewJob, Outcome, Reclaim, Result, Settled,
        Settlement, TypeQuota, WorkerId,
    },
};
use async_endpoints_redis::{Options, RedisStore};
use async_endpoints_testkit::{
    jobs::{error, job, name},
    server::RedisServer,
};
use uuid::Uuid;

pub const HOUR: Duration = Duration::from_secs(3600);
/// The time within which a call returns and a store reconnects.
pub const SOON: Duration = Duration::from_secs(5);

/// A prefix of this test alone.
pub fn prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Options with a prefix of this test alone.
pub fn options() -> Options {
    Options::new().prefix(prefix())
}

pub async fn open(server: &RedisServer, options: Options) -> RedisStore {
    options.open(server.url()).await.expect("opened")
}

/// A store on the server that all tests of this process share.
pub async fn shared() -> (Arc<RedisServer>, RedisStore) {
    let server = RedisServer::shared();
    let store = open(&server, options()).await;
    (server, store)
}

/// A claim for jobs of one type by a new worker.
pub fn claim_of(kind: &str, n: u32) -> Claim {
    Claim {
        worker: WorkerId(Uuid::new_v4()),
        token: LeaseToken::random(),
        quotas: vec![TypeQuota { name: name(kind), max: n, timeout: HOUR }],
        max: n,
        max_bytes: 1 << 20,
        lease: HOUR,
    }
}

/// Inserts a job of the type `alpha` that is kept for an hour.
pub async fn insert(store: &RedisStore) -> Result<NewJob> {
    let job = job("alpha", HOUR);
    match store.insert(job.clone()).await? {
        InsertOutcome::Inserted { .. } => Ok(job),
        other => panic!("{other:?}"),
    }
}

pub async fn take(store: &RedisStore, n: u32) -> Vec<Attempt> {
    store.claim(&claim_of("alpha", n)).await.expect("answered").attempts
}

pub fn settlement(lease: Lease, outcome: Outcome) -> Settlement {
    Settlement::new(lease, outcome, error("C"))
}

pub async fn settle(store: &RedisStore, lease: Lease, outcome: Outcome) -> Settled {
    store.settle(&[settlement(lease, outcome)]).await.expect("answered").remove(0)
}

pub fn sweep(lease: Duration) -> Reclaim {
    Reclaim { limit: 100, lease, lost: error("L"), canceled: error("C") }
}

/// The reason of a call that must fail as `Unavailable` within [`SOON`].
pub async fn unavailable<T: std::fmt::Debug>(call: impl Future<Output = Result<T>>) -> String {
    let began = Instant::now();
    match call.await {
        Err(StoreError::Unavailable(why)) => {
            assert!(began.elapsed() < SOON, "{:?}: {why}", began.elapsed());
            why
        }
        other => panic!("{other:?}"),
    }
}

/// Waits at most [`SOON`] until the store works again.
pub async fn back(store: &RedisStore) {
    let began = Instant::now();
    while let Err(error) = store.probe().await {
        assert!(error.is_transient() && began.elapsed() < SOON, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asserts that all jobs agree with all indexes.
pub async fn in_order(store: &RedisStore) {
    let repaired = store.repair().await.expect("answered");
    assert_eq!((repaired.repaired, repaired.quarantined), (0, 0), "{repaired:?}");
}
