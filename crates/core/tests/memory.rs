//! The in-memory store against the whole contract: alone, behind a store that could fail, and while it does.

use std::time::Duration;

use async_endpoints_core::{MemoryStore, SystemClock};
use async_endpoints_testkit::{Fixture, FlakyStore, ManualClock, Retrying, check_faults, check_model, conformance};

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
conformance!(real_time, async {
    Fixture::real_time(MemoryStore::with_clock(SystemClock::default()), Duration::from_millis(50))
});

#[test]
fn it_answers_as_the_model_does() {
    check_model(memory, 512);
}

#[test]
fn it_answers_as_the_model_does_when_calls_are_repeated() {
    let flaky = async || memory().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0)));
    check_model(flaky, 128);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_calls_fail() {
    check_faults(memory, 20).await;
}
