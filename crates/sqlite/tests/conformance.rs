//! The SQLite store against the whole contract: alone, behind a store that could fail, while it does, and as two
//! processes on one file.

mod common;

use std::time::Duration;

use async_endpoints_core::SystemClock;
use async_endpoints_sqlite::Synchronous;
use async_endpoints_testkit::{
    Fixture, FlakyStore, ManualClock, Retrying, Turns, check_faults, check_model, conformance,
};
use common::{Folder, open};

/// Waits for no disk: what is tested does not depend on it.
async fn timed() -> Fixture {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    Fixture::manual(open(&folder, Synchronous::Off, clock.clone()).await, clock).keep(folder)
}

/// Two handles on one file, taking turns: what one process did, the other knows.
async fn two() -> Fixture {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let first = open(&folder, Synchronous::Off, clock.clone()).await;
    let second = open(&folder, Synchronous::Off, clock.clone()).await;
    Fixture::manual(Turns::new([first, second]), clock).keep(folder)
}

/// As it is used: each commit waits for the disk, and the machine's clock decides.
async fn durable() -> Fixture {
    let folder = Folder::new();
    let store = open(&folder, Synchronous::Full, SystemClock::default()).await;
    Fixture::real_time(store, Duration::from_millis(50)).keep(folder)
}

conformance!(plain, timed());
conformance!(behind_flaky, async { timed().await.wrap(FlakyStore::new) });
conformance!(behind_delays, async {
    timed().await.wrap(|store| FlakyStore::new(store).delays(Duration::from_micros(300)))
});
conformance!(behind_retries, async {
    timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(11, 0.2, 0.0)))
});
conformance!(two_processes, two());
conformance!(real_time, durable());

#[test]
fn it_answers_as_the_model_does() {
    check_model(timed, 96);
}

#[test]
fn it_answers_as_the_model_does_when_calls_are_repeated() {
    check_model(async || timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0))), 48);
}

#[test]
fn two_processes_answer_as_the_model_does() {
    check_model(two, 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_calls_fail() {
    check_faults(timed, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_two_processes_while_calls_fail() {
    check_faults(two, 10).await;
}
