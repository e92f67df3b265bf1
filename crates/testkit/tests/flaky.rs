//! Tests of the decorators that fail and retry.

use std::sync::Arc;

use async_endpoints_core::{
    JobStore as _, MemoryStore,
    store::{InsertOutcome, JobLookup, StoreOperation},
};
use async_endpoints_testkit::{FlakyStore, Retrying, When, jobs};

fn flaky() -> (Arc<MemoryStore>, FlakyStore) {
    let store = Arc::new(MemoryStore::new());
    (store.clone(), FlakyStore::new(store))
}

#[tokio::test]
async fn scripted_fault_fails_one_call() {
    let (store, flaky) = flaky();
    let job = jobs::job("alpha", std::time::Duration::from_secs(9));
    flaky.fail_next(StoreOperation::Insert, When::Before);
    flaky.fail_next(StoreOperation::Insert, When::After);
    assert!(flaky.insert(job.clone()).await.is_err_and(|error| error.is_transient()));
    assert_eq!(store.get(job.id).await.expect("memory answers"), JobLookup::NotFound);
    assert_eq!(flaky.get(job.id).await.expect("other calls work"), JobLookup::NotFound);
    assert!(flaky.insert(job.clone()).await.is_err());
    assert!(matches!(store.get(job.id).await, Ok(JobLookup::Found(_))), "the call was applied");
    assert!(matches!(flaky.insert(job).await, Ok(InsertOutcome::Existing(JobLookup::Found(_)))));
    assert_eq!(flaky.faults(), 2);
}

#[tokio::test]
async fn outage_fails_every_call_until_it_ends() {
    let (_, flaky) = flaky();
    flaky.outage(true);
    assert!(flaky.probe().await.is_err());
    assert!(flaky.prune(1).await.is_err());
    flaky.outage(false);
    flaky.probe().await.expect("the outage is over");
}

#[tokio::test]
async fn equal_seeds_fail_equal_calls() {
    let run = async |seed| {
        let flaky = flaky().1.random(seed, 0.3, 0.0);
        let mut failed = Vec::new();
        for _ in 0..50 {
            failed.push(flaky.probe().await.is_err());
        }
        failed
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
    assert!(run(1).await.contains(&true) && run(1).await.contains(&false));
}

#[tokio::test]
async fn retrying_hides_transient_faults() {
    let (_, flaky) = flaky();
    for _ in 0..3 {
        flaky.fail_next(StoreOperation::Probe, When::Before);
    }
    Retrying(flaky).probe().await.expect("the fourth try succeeds");
}
