//! The rights that a store needs.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use async_endpoints_core::{JobStore, store::JobLookup};
use async_endpoints_postgres::{Options, tokio_postgres::IsolationLevel};
use async_endpoints_testkit::{
    jobs::job,
    server::{PgBouncer, PostgresServer, psql},
};

#[tokio::test]
async fn owner_of_a_schema_needs_no_other_right() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    psql(&url, "CREATE ROLE jobs_owner LOGIN");
    assert_eq!(psql(&url, "CREATE SCHEMA ae AUTHORIZATION jobs_owner"), "CREATE SCHEMA");
    let store = Options::new().open(url.replace("postgres@", "jobs_owner@")).await.unwrap();
    let job = job("Print", Duration::from_secs(60));
    store.insert(job.clone()).await.unwrap();
    assert!(matches!(store.get(job.id).await.unwrap(), JobLookup::Found(_)));
    let health = store.health().await.unwrap();
    assert!(health.degraded.is_empty(), "{health:?}");
    assert_eq!(health.data["max_connections"], 600);
}

#[tokio::test]
async fn transactions_of_other_roles_have_an_age_with_the_right_to_read_it() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    psql(&url, "CREATE ROLE jobs_reader LOGIN");
    psql(&url, "CREATE SCHEMA ae AUTHORIZATION jobs_reader");
    let store = Options::new().open(url.replace("postgres@", "jobs_reader@")).await.unwrap();
    let mut other = common::client(&postgres).await;
    let transaction = other.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
    transaction.execute("SELECT 1", &[]).await.unwrap();
    let age = async || store.health().await.unwrap().data["oldest_transaction_seconds"].clone();
    assert!(age().await.is_null(), "not seen is not 0");
    psql(&url, "GRANT pg_read_all_stats TO jobs_reader");
    assert!(age().await.is_u64());
    // The server counts the sessions of all roles.
    assert!(store.health().await.unwrap().data["connections"].as_u64().is_some_and(|used| used > 9));
}

#[tokio::test]
async fn role_that_may_not_create_the_schema_is_refused() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    psql(&url, "CREATE ROLE jobs_guest LOGIN");
    let error = Options::new().open(url.replace("postgres@", "jobs_guest@")).await.unwrap_err();
    assert!(error.to_string().contains("permission denied for database"), "{error}");
    assert!(!error.is_transient(), "{error}");
}

#[tokio::test]
async fn store_works_through_pgbouncer() {
    let postgres = PostgresServer::shared();
    let pooler = PgBouncer::with(&postgres, &[("default_pool_size", "2")]);
    let store = Options::new().open(pooler.url_of(&postgres.database())).await.unwrap();
    let jobs: Vec<_> = (0..50).map(|_| job("Print", Duration::from_secs(60))).collect();
    let inserted = futures_util::future::join_all(jobs.iter().map(|job| store.insert(job.clone()))).await;
    assert!(inserted.iter().all(Result::is_ok), "{inserted:?}");
    for job in jobs {
        assert!(matches!(store.get(job.id).await.unwrap(), JobLookup::Found(_)));
    }
}
