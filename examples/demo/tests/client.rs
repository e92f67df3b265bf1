//! The client crate with a demo that is killed.

mod support;

use async_endpoints_client::{Client, JobStatus};
use async_endpoints_testkit::server::free_port;
use serde_json::{Value, json};
use support::{Demo, Folder, in_time};

#[tokio::test]
async fn job_is_followed_over_a_kill() {
    let (folder, address) = (Folder::new(), format!("127.0.0.1:{}", free_port()));
    let vars = [("AE_BIND", &*address), ("AE_LEASE_SECONDS", "1")];
    let demo = Demo::start(&folder, &vars).await;
    let client = Client::new(&demo.url("")).expect("a client");
    let job = client.submit::<_, Value>("/api/sleep", &json!({ "seconds": 2 })).await.expect("a job");
    let mut states = job.follow();
    while in_time("a state", states.next()).await.expect("a state").expect("no error").status != JobStatus::InProgress {
    }
    demo.kill().await;
    let restarted = Demo::start(&folder, &vars).await;
    let mut last = None;
    while let Some(state) = in_time("a state", states.next()).await {
        last = Some(state.expect("no error"));
    }
    let last = last.expect("a state");
    assert_eq!((last.status, last.attempt, last.loss_count), (JobStatus::Completed, 2, 1));
    assert!(last.result.expect("a result")["sleptSeconds"].as_f64() >= Some(2.0));
    restarted.stop().await.expect("an exit");
}
