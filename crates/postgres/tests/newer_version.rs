//! Runs the store contract's conformance suite against a newer major version of PostgreSQL than Debian's.

mod common;

use async_endpoints_testkit::{check_model, conformance, server::PostgresServer};
use common::timed;

conformance!(plain, timed(PostgresServer::newer()));

#[test]
fn calls_match_the_model() {
    // The server would otherwise end after each case if no other test uses it.
    let server = PostgresServer::newer();
    check_model(async || timed(server.clone()).await, 24);
}

#[test]
fn version_is_newer_than_debians() {
    let version = |server: &PostgresServer| -> u32 {
        server.sql("SELECT current_setting('server_version_num')::int / 10000").parse().expect("a number")
    };
    assert!(version(&PostgresServer::newer()) > version(&PostgresServer::shared()));
}
