//! A process that returns from `main` after `serve`.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::exit, reason = "the program ends as after `main`")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio, exit},
    time::Duration,
};

use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobType, Options, SqliteStore};
use tokio::net::TcpListener;

const HASH: JobType<(), u64> = JobType::new("Hash");

/// The variable that makes this program the service, with its folder.
const FOLDER: &str = "EXIT_TEST_FOLDER";

fn hash(_ctx: JobContext<()>) -> Result<u64, JobError> {
    std::thread::sleep(Duration::from_millis(20)); // the slow work
    Ok(7)
}

/// A service that stops while its job runs.
async fn service(folder: &Path) {
    let store = SqliteStore::open(folder.join("jobs.db")).await.unwrap();
    let builder = AsyncEndpoints::builder(store).options(Options { concurrency: 2, ..Options::default() });
    let endpoints = builder.blocking_handler(HASH, hash).build().unwrap();
    for _ in 0..4 {
        endpoints.submit(HASH, ()).await.unwrap();
    }
    let app = axum::Router::new().merge(endpoints.job_routes());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stopping = endpoints.clone();
    tokio::spawn(async move {
        while stopping.worker_status().slots.busy == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stopping.shutdown();
    });
    endpoints.serve(listener, app).await.unwrap();
}

#[test]
fn returning_main_closes_the_file() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(service(Path::new(&folder)));
        drop(runtime);
        // As after `main`: threads that still run are killed.
        exit(0);
    }
    let folders = std::env::temp_dir().join(format!("async-endpoints-exit-{}", std::process::id()));
    for run in 0..10 {
        let folder: PathBuf = folders.join(run.to_string());
        fs::create_dir_all(&folder).unwrap();
        let mut program = Command::new(std::env::current_exe().unwrap());
        let ended = program.env(FOLDER, &folder).stdout(Stdio::null()).status().unwrap();
        assert!(ended.success(), "{ended}");
        let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["jobs.db"], "run {run}");
    }
    fs::remove_dir_all(folders).unwrap();
}
