//! Log lines about a store that does not answer.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobError, JobType,
    health::{BoxError, CheckResult},
};
use support::{flaky_store, quick, subscriber::OnLine, until};
use tracing::Level;

const WORK: JobType<(), ()> = JobType::new("Work");

static LINES: Mutex<Vec<Level>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<Level>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::test]
async fn outage_logs_its_start_and_its_end() {
    tracing::subscriber::set_global_default(OnLine(|level| lines().push(level))).unwrap();
    let (_inner, store) = flaky_store();
    let work = async |_: JobContext<()>| Ok::<_, JobError>(());
    let builder = AsyncEndpoints::builder(store.clone()).options(quick());
    // The built-in checks, which log the outage too, are replaced.
    let checks = ["asyncendpoints", "memory", "asyncendpoints.queuedepth", "workers"];
    let healthy = async || Ok::<_, BoxError>(CheckResult::healthy());
    let builder = checks.into_iter().fold(builder, |builder, name| builder.health_check(name, healthy));
    let endpoints = builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work).build().unwrap();
    let (running, run) = (endpoints.clone(), endpoints.clone());
    let run = tokio::spawn(async move { run.run().await });
    let before = store.faults();
    store.outage(true);
    until(async || store.faults() > before + 20).await;
    assert_eq!(*lines(), [Level::WARN]);
    store.outage(false);
    until(async || lines().len() > 1).await;
    assert_eq!(*lines(), [Level::WARN, Level::INFO]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(lines().len(), 2);
    running.shutdown();
    run.await.unwrap().unwrap();
}
