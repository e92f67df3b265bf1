//! The fleet as operators see it: live workers, the worker of an attempt, and stuck jobs.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, JobId, JobStatus, JobType, MemoryStore, Options, ReasonCode,
    StuckReason, WaitingReason, axum,
    core::{
        JobStore as _,
        store::{Claim, Heartbeat, LeaseToken, Reclaim, TypeCapacity, TypeQuota, WorkerId, WorkerInfo},
    },
};
use async_endpoints_testkit::{
    Checked, ManualClock,
    jobs::{error, name, worker},
};
use reqwest::StatusCode;
use serde_json::Value;
use support::{Process, Service, TestStore, until};
use tower_service::Service as _;
use uuid::Uuid;

const WORK: JobType<(), ()> = JobType::new("Work");
const STUCK_AFTER: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(86_400);
const STEP: Duration = Duration::from_millis(1);

async fn work(_: JobContext<()>) -> Result<(), async_endpoints::JobError> {
    Ok(())
}

async fn worker_ids(endpoints: &AsyncEndpoints) -> Vec<WorkerId> {
    endpoints.workers().await.unwrap().iter().map(|live| live.info.id).collect()
}

#[tokio::test]
async fn instances_list_the_same_workers() {
    let store = support::store();
    let build = || support::builder(&store).handler(WORK, work).build().unwrap();
    let processes = [Process::start(build(), 2), Process::start(build(), 2)];
    let endpoints = support::builder(&store).build().unwrap();
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    let service = Service::serve_app(store.clone(), endpoints, app).await;
    until(async || worker_ids(&service.endpoints).await.len() == 2).await;
    let expected = worker_ids(&service.endpoints).await;
    for process in &processes {
        until(async || worker_ids(&process.endpoints).await == expected).await;
        assert!(expected.contains(&process.endpoints.worker_status().worker));
    }

    let response = service.client.get(service.url("/ops/workers")).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["cache-control"]),
        (StatusCode::OK, &"no-store".parse().unwrap())
    );
    let document: Value = response.json().await.unwrap();
    let workers = document["workers"].as_array().unwrap();
    let ids: Vec<_> = workers.iter().map(|worker| worker["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
    let worker = &workers[0];
    assert_eq!(worker["pid"], std::process::id());
    assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
    assert!(!worker["host"].as_str().unwrap().is_empty());
    assert!(worker["startedAt"].as_str() <= worker["lastHeartbeatAt"].as_str());
    assert_eq!(worker["slots"], serde_json::json!({ "busy": 0, "idle": 8, "leaked": 0 }));
    assert_eq!(worker["types"], serde_json::json!([{ "name": "Work", "running": 0, "limit": 8 }]));

    drop(processes);
    until(async || worker_ids(&service.endpoints).await.is_empty()).await;
    service.stop().await;
}

#[tokio::test]
async fn attempt_in_document_names_its_worker() {
    let service = Service::start(|builder| builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work)).await;
    let id = service.submit("/work", Value::Null).await;
    let document = service.ended(id).await;
    assert_eq!(document["attempts"][0]["worker"], service.endpoints.worker_status().worker.to_string());
    service.stop().await;
}

/// A store on a manual clock, and three processes of it. Only the first has a handler for `WORK`; none runs jobs.
struct Fleet {
    clock: ManualClock,
    store: TestStore,
    instances: [AsyncEndpoints; 3],
}

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
        let options = Options { stuck_after: STUCK_AFTER, ..Options::default() };
        let builder = || AsyncEndpoints::builder(store.clone()).options(options.clone());
        let endpoint = || builder().endpoint(Endpoint::post("/work", WORK)).build().unwrap();
        Self { instances: [builder().handler(WORK, work).build().unwrap(), endpoint(), endpoint()], clock, store }
    }

    async fn submit(&self) -> JobId {
        self.instances[0].submit(WORK, ()).await.unwrap().job.id
    }

    /// Sends a heartbeat of a worker that has a handler for `WORK`.
    async fn heartbeat(&self, id: WorkerId, ttl: Duration) {
        let types = vec![TypeCapacity { name: name("Work"), running: 0, limit: 1 }];
        let heartbeat = Heartbeat { worker: WorkerInfo { types, ..worker(id) }, ttl };
        self.store.renew(&heartbeat, &[], ttl).await.unwrap();
    }

    async fn claim(&self, lease: Duration) -> WorkerId {
        let worker = WorkerId(Uuid::new_v4());
        let quotas = vec![TypeQuota { name: name("Work"), max: 1, timeout: Duration::from_secs(60) }];
        let claim = Claim { worker, token: LeaseToken::random(), quotas, max: 1, max_bytes: 1 << 20, lease };
        assert_eq!(self.store.claim(&claim).await.unwrap().attempts.len(), 1);
        worker
    }

    /// The stuck jobs, which all instances agree on.
    async fn stuck(&self) -> Vec<(JobId, StuckReason)> {
        let [first, second, third] = &self.instances;
        let stuck = first.stuck_jobs(10).await.unwrap();
        for other in [second, third] {
            assert_eq!(other.stuck_jobs(10).await.unwrap(), stuck);
        }
        stuck.into_iter().map(|stuck| (stuck.job.id, stuck.reason)).collect()
    }

    /// The status and description of each health check, which new instances agree on. Checks without a description are left
    /// out.
    async fn health(&self) -> Vec<(String, String)> {
        let mut answers = Vec::new();
        for _ in 0..3 {
            let instance = AsyncEndpoints::builder(self.store.clone()).access(Access::open());
            let instance = instance.options(self.instances[0].options().clone());
            answers.push(health(&instance.endpoint(Endpoint::post("/work", WORK)).build().unwrap()).await);
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let text = |check: &Value, key| check[key].as_str().map(str::to_owned);
        let checks = answers[0].iter().filter_map(|check| Some((text(check, "status")?, text(check, "description")?)));
        checks.collect()
    }

    /// Checks that the job becomes stuck only after that time from now.
    async fn assert_stuck_after(&self, time: Duration, id: JobId, reason: StuckReason) {
        self.clock.advance(time);
        assert_eq!(self.stuck().await, []);
        self.clock.advance(STEP);
        assert_eq!(self.stuck().await, [(id, reason)]);
    }
}

/// The health checks of these endpoints, without what differs between processes.
async fn health(endpoints: &AsyncEndpoints) -> Vec<Value> {
    loop {
        let probe = axum::http::Request::get("/health").body(axum::body::Body::empty()).unwrap();
        let answer = endpoints.monitoring_routes::<()>().call(probe).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let mut checks: Vec<Value> =
            serde_json::from_value(serde_json::from_slice::<Value>(&body).unwrap()["checks"].take()).unwrap();
        if checks.iter().all(|check| check["description"] != "not checked yet") {
            for check in &mut checks {
                check["duration"] = Value::Null;
                check["data"]["store_latency_ms"] = Value::Null;
                check["data"]["resident_bytes"] = Value::Null;
            }
            return checks;
        }
        tokio::time::sleep(STEP).await;
    }
}

#[tokio::test]
async fn instances_agree_on_every_check() {
    let fleet = Fleet::new();
    for _ in 0..100 {
        fleet.submit().await;
    }
    let degraded = |text: &str| ("Degraded".to_owned(), text.to_owned());
    let (depth, abandoned) =
        (degraded("Work has 100 queued jobs, limit 100"), degraded("jobs of Work wait and no live worker runs them"));
    assert_eq!(fleet.health().await, [depth.clone(), abandoned.clone()]);
    fleet.clock.advance(STUCK_AFTER + STEP);
    assert_eq!(fleet.health().await, [degraded("100 jobs are stuck, more than 10"), depth.clone(), abandoned]);
    fleet.heartbeat(WorkerId(Uuid::new_v4()), DAY).await;
    assert_eq!(fleet.health().await, [depth]);
    fleet.claim(DAY).await;
    assert_eq!(fleet.health().await, []);
}

#[tokio::test(start_paused = true)]
async fn dead_worker_disappears() {
    let fleet = Fleet::new();
    let [dead, live] = [WorkerId(Uuid::new_v4()), WorkerId(Uuid::new_v4())];
    fleet.heartbeat(dead, Duration::from_secs(16)).await;
    fleet.heartbeat(live, DAY).await;
    for instance in &fleet.instances {
        assert_eq!(worker_ids(instance).await.len(), 2);
    }
    fleet.clock.advance(Duration::from_secs(16));
    tokio::time::advance(Duration::from_secs(1)).await;
    for instance in &fleet.instances {
        assert_eq!(worker_ids(instance).await, [live]);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_worker_counts_nowhere_as_live() {
    let fleet = Fleet::new();
    let id = fleet.submit().await;
    let facts = async |endpoints: &AsyncEndpoints| {
        let job = support::found(endpoints, id).await;
        let explained = endpoints.explain(id).await.unwrap().unwrap();
        let of_type = endpoints.types().await.unwrap().remove(0);
        let waiting = endpoints.waiting(&job).await.unwrap().reason;
        (waiting, explained.reasons[0].code, explained.workers.live, (of_type.workers, of_type.limit))
    };
    let none = (WaitingReason::NoWorker, ReasonCode::NoWorker, 0, (0, 0));
    for instance in &fleet.instances {
        assert_eq!(facts(instance).await, none);
    }
    fleet.heartbeat(WorkerId(Uuid::new_v4()), Duration::from_secs(16)).await;
    let live = (WaitingReason::Queued, ReasonCode::SlotsBusy, 1, (1, 1));
    for (later, expected) in [(4, live), (1, none)] {
        fleet.clock.advance(Duration::from_secs(later));
        tokio::time::advance(Duration::from_secs(1)).await;
        for instance in &fleet.instances {
            assert_eq!(facts(instance).await, expected, "after {later} s more");
            assert_eq!(worker_ids(instance).await.len(), 1, "operators see its last heartbeat");
        }
    }
}

#[tokio::test]
async fn waiting_job_is_stuck_without_a_worker() {
    let fleet = Fleet::new();
    let id = fleet.submit().await;
    fleet.assert_stuck_after(STUCK_AFTER, id, StuckReason::NoWorker).await;
    let worker = WorkerId(Uuid::new_v4());
    fleet.heartbeat(worker, STEP).await;
    assert_eq!(fleet.stuck().await, [], "a live worker takes the type");
    fleet.clock.advance(STEP);
    assert_eq!(fleet.stuck().await, [(id, StuckReason::NoWorker)], "the worker died");
}

#[tokio::test]
async fn delayed_job_is_stuck_from_its_due_time() {
    let fleet = Fleet::new();
    let delay = Duration::from_secs(3_600);
    let submitted = fleet.instances[0].submit(WORK, ()).delay(delay).await.unwrap().job;
    assert_eq!(submitted.status, JobStatus::Scheduled);
    fleet.assert_stuck_after(delay + STUCK_AFTER, submitted.id, StuckReason::NoWorker).await;
}

#[tokio::test]
async fn recovered_job_is_stuck_from_its_recovery() {
    let fleet = Fleet::new();
    let id = fleet.submit().await;
    fleet.claim(Duration::from_secs(9)).await;
    fleet.clock.advance(Duration::from_secs(10));
    // The first sweep waits for workers that were cut off.
    let reclaim = Reclaim {
        limit: 9,
        lease: Duration::from_secs(9),
        lost: error("WORKER_LOST"),
        canceled: error("JOB_CANCELED"),
    };
    fleet.store.reclaim(&reclaim).await.unwrap();
    fleet.clock.advance(Duration::from_secs(9));
    fleet.store.reclaim(&reclaim).await.unwrap();
    assert_eq!(support::found(&fleet.instances[0], id).await.status, JobStatus::Queued);
    fleet.assert_stuck_after(STUCK_AFTER, id, StuckReason::NoWorker).await;
}

#[tokio::test]
async fn running_job_is_stuck_past_its_timeout() {
    let fleet = Fleet::new();
    let id = fleet.submit().await;
    let worker = fleet.claim(DAY).await;
    fleet.heartbeat(worker, DAY).await;
    // The handler is stopped in 5 s, and a blocked one is given up after 2 s more.
    let timeout = Options::default().job_timeout + Duration::from_secs(7);
    fleet.assert_stuck_after(timeout, id, StuckReason::Overdue).await;
}

#[tokio::test]
async fn unrecovered_job_is_stuck() {
    const LONG: JobType<(), ()> = JobType::new("Work").timeout(DAY);
    let fleet = Fleet::new();
    let builder = || {
        let options = fleet.instances[0].options().clone();
        AsyncEndpoints::builder(fleet.store.clone()).options(options).endpoint(Endpoint::post("/work", LONG))
    };
    let fleet = Fleet { instances: [(); 3].map(|()| builder().build().unwrap()), ..fleet };
    let id = fleet.submit().await;
    let lease = Duration::from_secs(8);
    let worker = fleet.claim(lease).await;
    fleet.heartbeat(worker, lease).await;
    fleet.assert_stuck_after(lease + STUCK_AFTER, id, StuckReason::LeaseExpired).await;
    fleet.clock.advance(DAY);
    assert_eq!(fleet.stuck().await, [(id, StuckReason::LeaseExpired)], "an expired lease explains an overdue attempt");
}

#[tokio::test]
async fn longest_stuck_jobs_come_first_up_to_the_limit() {
    let fleet = Fleet::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push((fleet.submit().await, StuckReason::NoWorker));
        fleet.clock.advance(STEP);
    }
    fleet.clock.advance(STUCK_AFTER);
    assert_eq!(fleet.stuck().await, ids);
    let some = fleet.instances[2].stuck_jobs(2).await.unwrap();
    assert_eq!(some.iter().map(|stuck| (stuck.job.id, stuck.reason)).collect::<Vec<_>>(), ids[..2]);
}
