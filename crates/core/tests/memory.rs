//! The memory store against the whole contract: alone, behind decorators, and while calls fail.

use std::time::Duration;

use async_endpoints_core::MemoryStore;
use async_endpoints_testkit::{
    Fixture, FlakyStore, ManualClock, Retrying, RunningClock, check_faults, check_model, conformance,
};

async fn memory() -> Fixture {
    let clock = ManualClock::new();
    Fixture::manual(MemoryStore::with_clock(clock.clone()), clock)
}

conformance!(plain, memory());
conformance!(behind_flaky, async { memory().await.wrap(FlakyStore::new) });
conformance!(behind_delays, async {
    memory().await.wrap(|store| FlakyStore::new(store).delays(Duration::from_micros(300)))
});
conformance!(behind_retries, async {
    memory().await.wrap(|store| Retrying(FlakyStore::new(store).random(11, 0.2, 0.0)))
});
conformance!(running_clock, async {
    let clock = RunningClock::new();
    Fixture::running(MemoryStore::with_clock(clock.clone()), clock)
});

#[test]
fn random_calls_match_model() {
    check_model(memory, 512);
}

#[test]
fn random_repeated_calls_match_model() {
    let flaky = async || memory().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0)));
    check_model(flaky, 128);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_lose_no_job() {
    check_faults(memory, 20).await;
}
