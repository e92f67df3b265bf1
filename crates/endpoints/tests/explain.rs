//! `GET /jobs/{id}/explain`: each reason once, over HTTP or with a store whose time the test sets.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, Builder, Endpoint, JobContext, JobError, JobId, JobType, MemoryStore, Options, ReasonCode,
    RetryPolicy,
    core::{
        JobStore as _,
        store::{Heartbeat, TypeCapacity, WorkerInfo, WorkerSlots},
    },
};
use async_endpoints_testkit::{Fixture, ManualClock, Rig, jobs};
use serde_json::{Value, json};
use support::{Service, quick, store};
use tokio::sync::Semaphore;

const WAITS: JobType<u32, ()> = JobType::new("Waits");
const FAILS: JobType<u32, ()> = JobType::new("Fails").max_retries(1);
const PERMANENT: JobType<u32, ()> = JobType::new("Permanent");
const SLOW: JobType<u32, ()> = JobType::new("Slow").max_retries(0).timeout(Duration::from_millis(50));
const GIVES_UP: JobType<u32, ()> = JobType::new("GivesUp");
const LIMITED: JobType<u32, ()> = JobType::new("Limited").concurrency(1);
const NOWHERE: JobType<u32, ()> = JobType::new("Nowhere");
const DELAYED: JobType<u32, ()> = JobType::new("Delayed").delay(Duration::from_secs(3600));
const LATER: JobType<u32, ()> = JobType::new("Later").retry(RetryPolicy::exponential(Duration::from_secs(3600)));

/// A service with a gate: handlers of `Waits` and `Limited` pass it when the test opens it.
async fn service(gate: &Arc<Semaphore>, concurrency: u32) -> Service {
    let pass = |gate: &Arc<Semaphore>| {
        let gate = gate.clone();
        move |ctx: JobContext<u32>| {
            let gate = gate.clone();
            async move {
                tokio::select! {
                    passed = gate.acquire() => { passed.unwrap().forget(); Ok(()) }
                    () = ctx.cancellation().cancelled() => Err(JobError::canceled()),
                }
            }
        }
    };
    let build = |builder: Builder| {
        builder
            .options(Options { concurrency, ..quick() })
            .endpoint(Endpoint::post("/waits", WAITS))
            .endpoint(Endpoint::post("/fails", FAILS))
            .endpoint(Endpoint::post("/permanent", PERMANENT))
            .endpoint(Endpoint::post("/slow", SLOW))
            .endpoint(Endpoint::post("/gives-up", GIVES_UP))
            .endpoint(Endpoint::post("/limited", LIMITED))
            .endpoint(Endpoint::post("/nowhere", NOWHERE))
            .endpoint(Endpoint::post("/delayed", DELAYED))
            .endpoint(Endpoint::post("/later", LATER))
            .handler(WAITS, pass(gate))
            .handler(LIMITED, pass(gate))
            .handler(FAILS, async |_: JobContext<u32>| Err(JobError::retryable("BROKEN", "It broke.")))
            .handler(LATER, async |_: JobContext<u32>| Err(JobError::retryable("BROKEN", "It broke.")))
            .handler(PERMANENT, async |_: JobContext<u32>| Err(JobError::permanent("BAD", "It is bad.")))
            .handler(GIVES_UP, async |_: JobContext<u32>| Err(JobError::canceled()))
            .handler(SLOW, async |ctx: JobContext<u32>| {
                ctx.cancellation().cancelled().await;
                Err(JobError::canceled())
            })
            .handler(DELAYED, async |_: JobContext<u32>| Ok(()))
    };
    Service::start(build).await
}

async fn explain(service: &Service, id: JobId) -> Value {
    let response = service.client.get(service.url(&format!("/jobs/{id}/explain"))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

fn codes(explained: &Value) -> Vec<&str> {
    explained["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

/// Waits until the document of a job has this reason to wait.
async fn waits(service: &Service, id: JobId, reason: &str) {
    support::until(async || service.job(id).await["waiting"]["reason"] == reason).await;
}

/// Waits until a job has exactly these reasons, and returns its explanation.
async fn explained(service: &Service, id: JobId, expected: &[&str]) -> Value {
    support::until(async || codes(&explain(service, id).await) == expected).await;
    explain(service, id).await
}

#[tokio::test]
async fn ended_jobs_are_explained() {
    let gate = Arc::new(Semaphore::new(1));
    let service = service(&gate, 8).await;
    for (path, expected) in [
        ("/waits", &["completed"][..]),
        ("/permanent", &["permanentError"]),
        ("/fails", &["retriesUsedUp", "retried"]),
        ("/slow", &["retriesUsedUp", "timedOut"]),
        ("/gives-up", &["canceledByHandler"]),
    ] {
        let id = service.submit(path, json!(1)).await;
        service.ended(id).await;
        let found = explain(&service, id).await;
        assert_eq!(codes(&found), expected, "{path}");
        assert_eq!((&found["position"], &found["estimate"]), (&Value::Null, &Value::Null), "{path}");
        assert!(
            found["verdict"].as_str().unwrap().ends_with('.') && found["reasons"][0]["since"].is_string(),
            "{path}"
        );
    }
    let failed = service.submit("/permanent", json!(1)).await;
    service.ended(failed).await;
    let again = service.client.post(service.url(&format!("/jobs/{failed}/retry"))).send().await.unwrap();
    let new: JobId = again.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
    service.ended(new).await;
    assert_eq!(codes(&explain(&service, failed).await), ["permanentError", "retriedBy"]);
    assert_eq!(codes(&explain(&service, new).await), ["permanentError", "retryOf"]);
    service.stop().await;
}

#[tokio::test]
async fn waiting_jobs_are_explained() {
    let gate = Arc::new(Semaphore::new(0));
    let service = service(&gate, 2).await;
    let nowhere = service.submit("/nowhere", json!(1)).await;
    let found = explained(&service, nowhere, &["noWorker", "queued"]).await;
    assert_eq!(found["verdict"], "The job waits because no live worker runs Nowhere.");
    assert_eq!(found["workers"]["taking"], 0);
    let delayed = service.submit("/delayed", json!(1)).await;
    explained(&service, delayed, &["delayed"]).await;
    let later = service.submit("/later", json!(1)).await;
    let found = explained(&service, later, &["retryBackoff", "retried"]).await;
    assert!(found["reasons"][0]["until"].is_string(), "{found}");

    service.endpoints.pause_type("Waits", "maintenance", None).await.unwrap();
    let paused = service.submit("/waits", json!(0)).await;
    let found = explained(&service, paused, &["paused", "queued"]).await;
    assert_eq!(found["reasons"][0]["detail"], "An operator paused Waits: maintenance.");
    service.cancel(paused).await;
    service.endpoints.resume_type("Waits").await.unwrap();

    let limited = service.submit("/limited", json!(1)).await;
    explained(&service, limited, &["running"]).await;
    let next = service.submit("/limited", json!(2)).await;
    let found = explained(&service, next, &["concurrencyLimit"]).await;
    assert_eq!(found["workers"], json!({"live": 1, "taking": 1, "free": 0}));
    assert_eq!(found["position"], json!({"ahead": 0, "exact": true}));
    waits(&service, next, "concurrencyLimit").await;

    let last_slot = service.submit("/waits", json!(1)).await;
    explained(&service, last_slot, &["running"]).await;
    let [first, second] = [service.submit("/waits", json!(2)).await, service.submit("/waits", json!(3)).await];
    explained(&service, first, &["slotsBusy"]).await;
    waits(&service, first, "queued").await;
    let found = explained(&service, second, &["slotsBusy", "queued"]).await;
    assert_eq!(found["verdict"], "The job waits for a free slot behind 1 job.");
    assert_eq!((&found["position"]["ahead"], &found["estimate"]), (&json!(1), &Value::Null), "no attempt has ended");
    gate.add_permits(5);
    service.ended(second).await;
    service.stop().await;
}

#[tokio::test]
async fn canceled_jobs_are_explained() {
    let gate = Arc::new(Semaphore::new(0));
    let service = service(&gate, 1).await;
    let running = service.submit("/waits", json!(1)).await;
    explained(&service, running, &["running"]).await;
    let waiting = service.submit("/waits", json!(2)).await;
    service.cancel(waiting).await;
    let found = explain(&service, waiting).await;
    assert_eq!(
        (codes(&found), &found["verdict"]),
        (vec!["canceledByCaller"], &json!("The job was canceled on request before it started."))
    );
    service.cancel(running).await;
    service.ended(running).await;
    let found = explain(&service, running).await;
    assert_eq!(
        (codes(&found), &found["verdict"]),
        (vec!["canceledByCaller"], &json!("The job was canceled on request while it ran."))
    );
    service.stop().await;
}

/// A store whose time the test sets, and endpoints that read it.
struct World {
    rig: Rig,
    endpoints: AsyncEndpoints,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let rig = Rig::new(&Fixture::manual(MemoryStore::with_clock(clock.clone()), clock));
        let timed = JobType::<(), ()>::new("A").timeout(Duration::from_secs(60));
        let builder = AsyncEndpoints::builder(rig.store.clone()).endpoint(Endpoint::post("/a", timed));
        let endpoints = builder.build().unwrap();
        rig.warm().await;
        Self { rig, endpoints }
    }

    /// Sends a heartbeat of the worker that claims.
    async fn send_heartbeat(&self) {
        let info = WorkerInfo {
            types: vec![TypeCapacity { name: jobs::name("A"), running: 1, limit: 8 }],
            slots: WorkerSlots { busy: 1, idle: 7, leaked: 0 },
            ..jobs::worker(self.rig.worker)
        };
        let heartbeat = Heartbeat { worker: info, ttl: Duration::from_secs(16) };
        self.rig.store.renew(&heartbeat, &[], Duration::from_secs(8)).await.unwrap();
    }

    async fn codes(&self, id: JobId) -> Vec<ReasonCode> {
        let explained = self.endpoints.explain(id).await.unwrap().unwrap();
        explained.reasons.iter().map(|reason| reason.code).collect()
    }
}

#[tokio::test]
async fn lost_lease_is_seen_and_recovery_is_explained() {
    use ReasonCode::*;
    let world = World::new().await;
    let id = world.rig.queue("A").await;
    for loss in 1..=6 {
        world.send_heartbeat().await;
        world.rig.take_for("A", 8).await;
        let mut running = vec![Running];
        let mut lost = vec![LeaseNotRenewed, Running];
        if loss > 1 {
            running.push(Recovered);
            lost.push(Recovered);
        }
        assert_eq!(world.codes(id).await, running, "loss {loss}");
        world.rig.advance(9).await;
        assert_eq!(world.codes(id).await, lost, "loss {loss}");
        world.rig.sweep().await;
    }
    assert_eq!(world.codes(id).await, [TooManyLosses, Recovered], "five losses are allowed");
    world.rig.store.verify().await;
}

#[tokio::test]
async fn running_problems_are_explained() {
    use ReasonCode::*;
    let world = World::new().await;
    let attempt = world.rig.start("A").await;
    let id = attempt.lease.job;
    world.rig.advance(61).await;
    world.send_heartbeat().await;
    assert_eq!(world.codes(id).await, [Overdue, Running]);
    world.rig.cancel(id).await;
    assert_eq!(world.codes(id).await, [CancelRequested, Overdue, Running]);
    let released = world.rig.start("A").await;
    world.rig.release(released.lease).await;
    assert_eq!(world.codes(released.lease.job).await, [Queued, Released]);
    world.rig.store.verify().await;
}

#[tokio::test]
async fn unknown_job_has_no_explanation() {
    let world = World::new().await;
    assert_eq!(world.endpoints.explain(JobId::random()).await.unwrap(), None);
    let gate = Arc::new(Semaphore::new(0));
    let service = service(&gate, 1).await;
    for id in [JobId::random().to_string(), "x".to_owned()] {
        let response = service.client.get(service.url(&format!("/jobs/{id}/explain"))).send().await.unwrap();
        assert_eq!(response.status(), 404);
    }
    service.stop().await;
}

#[tokio::test]
async fn owners_read_their_own_explanations_without_hosts() {
    let owner = |head: &async_endpoints::axum::http::request::Parts| {
        head.headers.get("x-user-id").and_then(|user| user.to_str().ok()).map(str::to_owned)
    };
    let gate = Arc::new(Semaphore::new(0));
    let handler_gate = gate.clone();
    let inner = store();
    let endpoints = AsyncEndpoints::builder(inner.clone())
        .options(quick())
        .access(Access::token("secret"))
        .owner(owner)
        .endpoint(Endpoint::post("/waits", WAITS))
        .handler(WAITS, move |_: JobContext<u32>| {
            let gate = handler_gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        })
        .build()
        .unwrap();
    let service = Service::serve(inner, endpoints).await;
    let post = service.client.post(service.url("/waits")).header("x-user-id", "ada").json(&1);
    let id = post.send().await.unwrap().json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let url = service.url(&format!("/jobs/{id}/explain"));
    let read = async |user: &str, token: Option<&str>| {
        let get = service.client.get(&url).header("x-user-id", user);
        token.into_iter().fold(get, |get, token| get.bearer_auth(token)).send().await.unwrap()
    };
    let detail = async |user: &str, token: Option<&str>| {
        let found: Value = read(user, token).await.json().await.unwrap();
        found["reasons"][0]["detail"].as_str().unwrap().to_owned()
    };
    support::until(async || detail("ada", None).await.contains("heartbeat")).await;
    assert_eq!(read("bob", None).await.status(), 404);
    let process = format!("process {}", std::process::id());
    assert!(!detail("ada", None).await.contains(&process));
    assert!(detail("bob", Some("secret")).await.contains(&process));
    gate.add_permits(1);
    service.stop().await;
}

#[tokio::test]
async fn estimates_of_a_real_queue_cover_the_starts() {
    let inner = store();
    let endpoints = || {
        support::builder(&inner)
            .options(Options { concurrency: 4, ..quick() })
            .endpoint(Endpoint::post("/waits", WAITS))
            .handler(WAITS, async |ctx: JobContext<u32>| {
                tokio::time::sleep(Duration::from_millis((*ctx.request()).into())).await;
                Ok(())
            })
            .build()
            .unwrap()
    };
    let run_time = |number: u32| 100 + 37 * number % 200;
    let before = endpoints();
    for number in 0..8 {
        before.submit(WAITS, run_time(number)).await.unwrap();
    }
    before.run_until_idle().await.unwrap();
    let service = Service::serve(inner.clone(), endpoints()).await;
    support::until(async || !service.endpoints.workers().await.unwrap().is_empty()).await;
    let submit = async |number: u32| service.submit("/waits", json!(run_time(number))).await;
    let ids = futures_util::future::join_all((0..60).map(&submit)).await;
    let mut estimates = Vec::new();
    for id in ids.iter().step_by(4) {
        estimates.push((*id, service.endpoints.explain(*id).await.unwrap().unwrap()));
    }
    let (mut covered, mut waiting) = (0, 0);
    for (id, explained) in estimates {
        let started = support::ended(&service.endpoints, id).await.started_at.unwrap();
        if let Some(estimate) = explained.estimate {
            waiting += 1;
            covered += usize::from((estimate.from..=estimate.to).contains(&started));
        }
    }
    assert!(waiting >= 6 && covered * 100 >= waiting * 80, "{covered} of {waiting} starts are covered");
    service.stop().await;
}

#[tokio::test]
async fn retry_after_of_a_queued_job_is_its_expected_wait() {
    let inner = store();
    let gate = Arc::new(Semaphore::new(0));
    let endpoints = || {
        let gate = gate.clone();
        support::builder(&inner)
            .options(Options { concurrency: 1, ..quick() })
            .endpoint(Endpoint::post("/waits", WAITS))
            .handler(WAITS, move |ctx: JobContext<u32>| {
                let gate = gate.clone();
                async move {
                    match *ctx.request() {
                        0 => gate.acquire().await.unwrap().forget(),
                        milliseconds => tokio::time::sleep(Duration::from_millis(milliseconds.into())).await,
                    }
                    Ok(())
                }
            })
            .build()
            .unwrap()
    };
    let before = endpoints();
    before.submit(WAITS, 200).await.unwrap();
    before.run_until_idle().await.unwrap();
    let service = Service::serve(inner.clone(), endpoints()).await;
    let ids = futures_util::future::join_all((0..41).map(|_| service.submit("/waits", json!(0)))).await;
    let retry_after = async || {
        let mut longest = 0;
        for id in &ids {
            let response = service.client.get(service.url(&format!("/jobs/{id}"))).send().await.unwrap();
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            longest = longest.max(seconds);
        }
        longest
    };
    // 40 jobs of 0.2 s wait for one slot. The statistics are up to 5 s old.
    support::until(async || (7..=10).contains(&retry_after().await)).await;
    gate.add_permits(41);
    service.stop().await;
}
