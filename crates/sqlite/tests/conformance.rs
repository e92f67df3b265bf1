//! The conformance suite and the model on the SQLite store: alone, behind decorators that fail or delay calls, and as two
//! processes on one file.

mod common;

use std::time::Duration;

use async_endpoints_sqlite::Synchronous;
use async_endpoints_testkit::{
    Fixture, FlakyStore, ManualClock, Retrying, RunningClock, Turns, check_faults, check_model, conformance,
};
use common::{Folder, open};

/// A store that does not wait for the disk.
async fn timed() -> Fixture {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    Fixture::manual(open(&folder, Synchronous::Off, clock.clone()).await, clock).keep(folder)
}

/// Two stores on one file, used in turn.
async fn two() -> Fixture {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let first = open(&folder, Synchronous::Off, clock.clone()).await;
    let second = open(&folder, Synchronous::Off, clock.clone()).await;
    Fixture::manual(Turns::new([first, second]), clock).keep(folder)
}

/// A store as in production: each commit waits for the disk, and the clock does not stand still.
async fn durable() -> Fixture {
    let (folder, clock) = (Folder::new(), RunningClock::new());
    let store = open(&folder, Synchronous::Full, clock.clone()).await;
    Fixture::running(store, clock).keep(folder)
}

conformance!(plain, timed());
conformance!(behind_delays, async {
    timed().await.wrap(|store| FlakyStore::new(store).delays(Duration::from_micros(300)))
});
conformance!(behind_retries, async {
    timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(11, 0.2, 0.0)))
});
conformance!(two_processes, two());
conformance!(durable_on_running_clock, durable());

#[test]
fn calls_agree_with_the_model() {
    check_model(timed, 96);
}

#[test]
fn repeated_calls_agree_with_the_model() {
    check_model(async || timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0))), 48);
}

#[test]
fn two_processes_agree_with_the_model() {
    check_model(two, 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_while_calls_fail() {
    check_faults(timed, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_lose_no_job_while_calls_fail() {
    check_faults(two, 10).await;
}
