//! Short chaos tests on SQLite, Redis and PostgreSQL. `cargo xtask chaos` runs longer ones.

mod support;

use std::time::Duration;

use async_endpoints_chaos::{Plan, StoreKind, run};
use support::Folder;

/// Runs chaos on a store, which must lose no job.
async fn no_job_is_lost(store: StoreKind, lease: u64, time: u64, seed: u64, recovery_limit: u64) {
    let folder = Folder::new();
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store,
        lease: Duration::from_secs(lease),
        time: Duration::from_secs(time),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: the run tested nothing: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    let limit = Duration::from_secs(recovery_limit);
    assert!(report.recovery(1.0).is_none_or(|took| took < limit), "seed {seed}: {report}");
}

/// The promise is 10 s; a machine that is busy with other tests may take longer.
#[tokio::test]
async fn chaos_on_sqlite_loses_no_job() {
    no_job_is_lost(StoreKind::Sqlite, 8, 45, std::process::id().into(), 20).await;
}

/// Short leases, so that more faults outlast a lease.
#[tokio::test]
async fn chaos_on_redis_loses_no_job() {
    no_job_is_lost(StoreKind::Redis, 3, 45, 5, 15).await;
}

/// Short leases, so that more faults outlast a lease.
#[tokio::test]
async fn chaos_on_postgres_loses_no_job() {
    no_job_is_lost(StoreKind::Postgres, 3, 45, 5, 15).await;
}
