//! Alerts of three processes over one store: one notification when a rule fires and one when it resolves, also if processes
//! or the store fail meanwhile.

mod support;

use std::time::Duration;

use async_endpoints_testkit::server::RedisServer;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{
    fleet::{
        Fleet,
        SharedStore::{self, Redis, Sqlite},
    },
    in_time,
};
use tokio::time::sleep;

#[tokio::test]
async fn problem_is_notified_once_over_sqlite() {
    problem_is_notified_once(Sqlite).await;
}

#[tokio::test]
async fn problem_is_notified_once_over_redis() {
    problem_is_notified_once(Redis).await;
}

async fn problem_is_notified_once(store: SharedStore) {
    let fleet = Fleet::of_three(store, &[("AE_ALERT_SLOW_SECONDS", "0.5")]).await;
    let slow = fleet.demos[0].submit("/api/sleep", &json!({ "seconds": 3600 })).await;
    fleet.fail().await;
    for rule in ["failure_rate", "slow_jobs"] {
        fleet.notified(rule, "firing").await;
    }
    fleet.evaluates().await;
    assert_eq!(fleet.hook.deliveries().len(), 2);
    fleet.succeed().await;
    assert_eq!(fleet.demos[1].post(&format!("{slow}/cancel"), &Value::Null).await.status(), StatusCode::ACCEPTED);
    for rule in ["failure_rate", "slow_jobs"] {
        fleet.notified(rule, "resolved").await;
    }
    fleet.evaluates().await;
    fleet.ends_with_one_alert_of(&["failure_rate", "slow_jobs"]).await;
}

#[tokio::test]
async fn next_leader_repeats_nothing_over_sqlite() {
    next_leader_repeats_nothing(Sqlite).await;
}

#[tokio::test]
async fn next_leader_repeats_nothing_over_redis() {
    next_leader_repeats_nothing(Redis).await;
}

async fn next_leader_repeats_nothing(store: SharedStore) {
    let mut fleet = Fleet::of_three(store, &[]).await;
    fleet.fail().await;
    let fired = fleet.notified("failure_rate", "firing").await;
    // By then the leader has stored that it sent the notification.
    fleet.evaluates().await;
    let leader = fleet.leader(&fired).await;
    fleet.demos.remove(leader).kill().await;
    fleet.evaluates().await;
    fleet.succeed().await;
    let resolved = fleet.notified("failure_rate", "resolved").await;
    assert_ne!(resolved["instance"], fired["instance"], "another process is the leader");
    fleet.evaluates().await;
    fleet.ends_with_one_alert_of(&["failure_rate"]).await;
}

#[tokio::test]
async fn restart_of_all_repeats_nothing_over_sqlite() {
    restart_of_all_repeats_nothing(Sqlite).await;
}

#[tokio::test]
async fn restart_of_all_repeats_nothing_over_redis() {
    restart_of_all_repeats_nothing(Redis).await;
}

async fn restart_of_all_repeats_nothing(store: SharedStore) {
    let mut fleet = Fleet::of_three(store, &[]).await;
    fleet.fail().await;
    fleet.notified("failure_rate", "firing").await;
    fleet.stop().await;
    fleet.start_three().await;
    fleet.evaluates().await;
    fleet.kill().await;
    fleet.start_three().await;
    fleet.evaluates().await;
    fleet.succeed().await;
    fleet.notified("failure_rate", "resolved").await;
    fleet.evaluates().await;
    fleet.ends_with_one_alert_of(&["failure_rate"]).await;
}

#[tokio::test]
async fn killed_redis_is_one_alert() {
    outage_is_one_alert(RedisServer::kill, RedisServer::restart).await;
}

#[tokio::test]
async fn hanging_redis_is_one_alert() {
    outage_is_one_alert(RedisServer::pause, RedisServer::resume).await;
}

/// During the outage, jobs run and wait, and lose their workers. The settings let four other rules fire at that.
async fn outage_is_one_alert(begin: fn(&RedisServer), end: fn(&RedisServer)) {
    let settings = [
        ("AE_LEASE_SECONDS", "1"),
        ("AE_CONCURRENCY", "1"),
        ("AE_ALERT_WINDOW_SECONDS", "5"),
        ("AE_ALERT_SLOW_SECONDS", "4"),
        ("AE_ALERT_STUCK_SECONDS", "1"),
        ("AE_ALERT_QUEUE_WAIT_SECONDS", "3"),
        ("AE_ALERT_OLDEST_QUEUED_SECONDS", "3"),
    ];
    let fleet = Fleet::of_three(Redis, &settings).await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(fleet.demos[0].submit("/api/sleep", &json!({ "seconds": 2 })).await);
    }
    fleet.evaluates().await;
    begin(fleet.redis());
    let fired = fleet.notified("store_errors", "firing").await;
    assert!(fired["message"].as_str().is_some_and(|message| message.starts_with("All store calls")), "{fired}");
    for demo in &fleet.demos {
        let is_ready = async || demo.get("/health/ready").await.status() == StatusCode::OK;
        in_time("a process that is not ready", async {
            while is_ready().await {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    assert_eq!(fleet.hook.deliveries().len(), 1);
    end(fleet.redis());
    fleet.notified("store_errors", "resolved").await;
    for job in jobs {
        assert_eq!(fleet.demos[1].ended(&job).await["status"], "Completed");
    }
    fleet.evaluates().await;
    fleet.ends_with_one_alert_of(&["store_errors"]).await;
}

#[tokio::test]
async fn killed_worker_is_noticed_once_over_sqlite() {
    killed_worker_is_noticed_once(Sqlite).await;
}

#[tokio::test]
async fn killed_worker_is_noticed_once_over_redis() {
    killed_worker_is_noticed_once(Redis).await;
}

async fn killed_worker_is_noticed_once(store: SharedStore) {
    let settings = [("AE_LEASE_SECONDS", "1"), ("AE_CONCURRENCY", "8"), ("AE_ALERT_STUCK_SECONDS", "1")];
    let mut fleet = Fleet::empty(store, &settings).await;
    for role in ["api", "api", "worker"] {
        fleet.start(role).await;
    }
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(fleet.demos[0].submit("/api/sleep", &json!({ "seconds": 4 })).await);
    }
    for job in &jobs {
        fleet.demos[0].job_when(job, |job| job["status"] == "InProgress").await;
    }
    fleet.demos.pop().expect("a worker").kill().await;
    for rule in ["no_workers", "stuck_jobs"] {
        fleet.notified(rule, "firing").await;
    }
    fleet.until_sum(r#"async_job_stuck{job_type="Sleep"} "#, 2.0 * 6.0).await;
    fleet.until_sum(r#"async_job_recovered_total{job_type="Sleep"} "#, 6.0).await;
    fleet.start("worker").await;
    for rule in ["no_workers", "stuck_jobs"] {
        fleet.notified(rule, "resolved").await;
    }
    for job in jobs {
        let job = fleet.demos[0].ended(&job).await;
        let found = (&job["status"], &job["attempt"], &job["lossCount"]);
        assert_eq!(found, (&json!("Completed"), &json!(2), &json!(1)), "{job}");
    }
    fleet.evaluates().await;
    fleet.ends_with_one_alert_of(&["no_workers", "stuck_jobs"]).await;
}
