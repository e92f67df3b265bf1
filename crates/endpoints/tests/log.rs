//! Jobs and the end of the process under a subscriber that panics at every line.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints::{Endpoint, JobContext, JobError, JobType};
use serde_json::Value;
use support::Service;
use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

const WORK: JobType<(), u32> = JobType::new("Work");

struct Panicking;

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("async_endpoints")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        panic!("the subscriber panics");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn panicking_subscriber_changes_nothing() {
    tracing::subscriber::set_global_default(Panicking).unwrap();
    let work = async |_: JobContext<()>| Ok::<_, JobError>(7);
    let service = Service::start(|builder| builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work)).await;
    let id = service.submit("/work", Value::Null).await;
    assert_eq!(service.ended(id).await["result"], 7);
    // Logs that the process stops.
    service.stop().await;
}
