//! Short chaos tests on SQLite, Redis and PostgreSQL. `cargo xtask chaos` runs longer ones.

mod support;

use std::time::Duration;

use async_endpoints_chaos::{Plan, StoreKind, run};
use support::Folder;

#[tokio::test]
async fn chaos_on_sqlite_loses_no_job() {
    let (folder, seed) = (Folder::new(), u64::from(std::process::id()));
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store: StoreKind::Sqlite,
        lease: Duration::from_secs(8),
        time: Duration::from_secs(25),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: the run tested nothing: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    // The promise is 10 s; a machine that is busy with other tests may take longer.
    assert!(report.recovery(1.0).is_none_or(|took| took < Duration::from_secs(20)), "seed {seed}: {report}");
}

/// Short leases, so that more faults outlast a lease.
#[tokio::test]
async fn chaos_on_redis_loses_no_job() {
    let (folder, seed) = (Folder::new(), 5);
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store: StoreKind::Redis,
        lease: Duration::from_secs(3),
        time: Duration::from_secs(45),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: the run tested nothing: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    assert!(report.recovery(1.0).is_none_or(|took| took < Duration::from_secs(15)), "seed {seed}: {report}");
}

#[tokio::test]
async fn chaos_on_postgresql_loses_no_job() {
    let (folder, seed) = (Folder::new(), 5);
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store: StoreKind::Postgres,
        lease: Duration::from_secs(3),
        time: Duration::from_secs(45),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: the run tested nothing: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    assert!(report.recovery(1.0).is_none_or(|took| took < Duration::from_secs(15)), "seed {seed}: {report}");
}
