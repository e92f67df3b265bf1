//! Runs the store contract's conformance suite against a real PostgreSQL server: one process, two processes, and decorators that
//! delay calls or let them fail.

mod common;

use std::{sync::Arc, time::Duration};

use async_endpoints_postgres::Options;
use async_endpoints_testkit::{
    Fixture, FlakyStore, ManualClock, Retrying, Turns, check_faults, check_model, conformance, server::PostgresServer,
};
use common::{OnClock, TestSchema, schema};

/// A store on a manual clock.
async fn timed() -> Fixture {
    common::timed(PostgresServer::volatile()).await
}

/// Two processes that take turns.
async fn two_processes() -> Fixture {
    let (server, clock) = (PostgresServer::volatile(), ManualClock::new());
    let schema = TestSchema::unused(&server).await;
    let stores = [
        OnClock::open(&server, Arc::clone(&schema), clock.clone()).await,
        OnClock::open(&server, schema, clock.clone()).await,
    ];
    Fixture::manual(Turns::new(stores), clock).keep(server)
}

/// A store on the server's clock.
async fn real() -> Fixture {
    let server = PostgresServer::volatile();
    let options = Options::new().schema(schema()).allow_volatile(true);
    let store = options.open(server.url()).await.expect("opened");
    Fixture::real_time(store, Duration::from_millis(200)).keep(server)
}

conformance!(plain, timed());
conformance!(behind_delays, async {
    timed().await.wrap(|store| FlakyStore::new(store).delays(Duration::from_micros(300)))
});
conformance!(behind_retries, async {
    timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(11, 0.2, 0.0)))
});
conformance!(two_processes_in_turn, two_processes());

conformance!(real_time, real());

// Tests of the model keep the server for all their cases. Otherwise it would end after each case if no other test uses it.

#[test]
fn calls_match_the_model() {
    let _kept = PostgresServer::volatile();
    check_model(timed, 96);
}

#[test]
fn retried_calls_match_the_model() {
    let _kept = PostgresServer::volatile();
    check_model(async || timed().await.wrap(|store| Retrying(FlakyStore::new(store).random(7, 0.2, 0.0))), 48);
}

#[test]
fn two_processes_match_the_model() {
    let _kept = PostgresServer::volatile();
    check_model(two_processes, 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_calls_lose_no_job() {
    check_faults(timed, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_calls_of_two_processes_lose_no_job() {
    check_faults(two_processes, 10).await;
}
