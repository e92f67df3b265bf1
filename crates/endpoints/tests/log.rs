//! Jobs and the end of the process under a subscriber that panics at every line.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{Endpoint, JobContext, JobError, JobType};
use serde_json::Value;
use support::{Service, subscriber::OnLine};

const WORK: JobType<(), u32> = JobType::new("Work");

#[tokio::test]
async fn panicking_subscriber_changes_nothing() {
    tracing::subscriber::set_global_default(OnLine(|_| panic!("the subscriber panics"))).unwrap();
    let work = async |_: JobContext<()>| Ok::<_, JobError>(7);
    let service = Service::start(|builder| builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work)).await;
    let id = service.submit("/work", Value::Null).await;
    assert_eq!(service.ended(id).await["result"], 7);
    // Logs that the process stops.
    service.stop().await;
}
