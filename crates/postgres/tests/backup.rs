//! The commands for backup and restore of `docs/deployment/recovery.md`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{process::Command, time::Duration};

use async_endpoints_core::{JobStatus, JobStore, store::JobLookup};
use async_endpoints_postgres::PostgresStore;
use async_endpoints_testkit::{
    jobs::job,
    server::{PostgresServer, psql},
};

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_dump_has_the_jobs_of_its_moment() {
    let server = PostgresServer::shared();
    let url = server.database();
    psql(&url, "CREATE ROLE jobs_of_backup LOGIN; CREATE SCHEMA ae AUTHORIZATION jobs_of_backup");
    psql(&url, "DO $$ BEGIN EXECUTE 'GRANT CREATE ON DATABASE ' || current_database() || ' TO jobs_of_backup'; END $$");
    let own_url = url.replace("postgres@", "jobs_of_backup@");
    let dump = server.folder().join("jobs.dump").display().to_string();
    let [kept, lost] = [(), ()].map(|()| job("Print", Duration::from_secs(60)));
    let store = PostgresStore::open(own_url.clone()).await.unwrap();
    store.insert(kept.clone()).await.unwrap();
    run("pg_dump", &["--format=custom", "--schema=ae", "--file", &dump, &own_url]);
    store.insert(lost.clone()).await.unwrap();
    drop(store);
    assert_eq!(psql(&own_url, "SET client_min_messages = error; DROP SCHEMA ae CASCADE"), "SET\nDROP SCHEMA");
    run("pg_restore", &["--single-transaction", "--dbname", &own_url, &dump]);
    let store = PostgresStore::open(own_url).await.unwrap();
    let JobLookup::Found(found) = store.get(kept.id).await.unwrap() else { panic!("no job") };
    assert_eq!((found.status, found.ahead), (JobStatus::Queued, Some(0)));
    assert_eq!(store.get(lost.id).await.unwrap(), JobLookup::NotFound);
    store.insert(lost.clone()).await.unwrap();
    assert!(matches!(store.get(lost.id).await.unwrap(), JobLookup::Found(found) if found.ahead == Some(1)));
}
