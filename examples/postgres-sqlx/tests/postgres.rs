//! Runs the example against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::process::Command;

use async_endpoints_testkit::server::{PostgresServer, psql};

#[test]
fn committed_order_is_shipped_and_refused_one_leaves_nothing() {
    let postgres = PostgresServer::start();
    let url = postgres.database();
    let program = env!("CARGO_BIN_EXE_async-endpoints-postgres-sqlx-example");
    let output = Command::new(program).arg(&url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "shipped tea for order 1\nthe moon is not for sale\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(psql(&url, "SELECT item FROM orders"), "tea");
    assert_eq!(psql(&url, "SELECT count(*) FROM ae.jobs"), "1");
}
