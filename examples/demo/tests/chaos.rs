//! Processes that share a store are killed, stopped and frozen under load, and so is their server, and the ways to it:
//! half a minute by default settings on SQLite, and as much as a test may take on Redis. `cargo xtask chaos` is the long
//! form.

mod support;

use std::time::Duration;

use async_endpoints_chaos::{Plan, Store, run};
use support::Folder;

#[tokio::test]
async fn nothing_accepted_is_lost_whatever_happens_to_processes() {
    let (folder, seed) = (Folder::new(), u64::from(std::process::id()));
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store: Store::Sqlite,
        lease: Duration::from_secs(8),
        time: Duration::from_secs(25),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: nothing was tried: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    // The promise is ten seconds, of machines that have time.
    assert!(report.recovery(1.0).is_none_or(|took| took < Duration::from_secs(20)), "seed {seed}: {report}");
}

/// With short leases, so that more happens that is longer than one.
#[tokio::test]
async fn nothing_accepted_is_lost_whatever_happens_to_redis() {
    let (folder, seed) = (Folder::new(), 5);
    let plan = Plan {
        demo: env!("CARGO_BIN_EXE_async-endpoints-demo").into(),
        folder: folder.join("chaos"),
        store: Store::Redis,
        lease: Duration::from_secs(3),
        time: Duration::from_secs(45),
        seed,
    };
    let report = run(plan).await.expect("the processes start");
    println!("{report}");
    assert!(report.is_meaningful(), "seed {seed}: nothing was tried: {report}");
    assert!(report.is_good(), "seed {seed}: {report}");
    assert!(report.recovery(1.0).is_none_or(|took| took < Duration::from_secs(15)), "seed {seed}: {report}");
}
