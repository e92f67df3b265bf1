//! Pauses and limits of job types, and what operators see of types, over HTTP and from a second process.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobId, JobStatus, JobType, MemoryStore, Timestamp, WaitingReason,
    core::Clock as _,
};
use async_endpoints_testkit::{Checked, ManualClock};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Process, Service, TestStore, found, until};
use tokio::sync::Semaphore;

const PRINT: JobType<(), ()> = JobType::new("Print");
const OTHER: JobType<(), ()> = JobType::new("Other");
/// A change applies in every process within this time.
const APPLIED: Duration = Duration::from_secs(2);

/// A handler that counts its attempts, and runs until it is released.
#[derive(Clone)]
struct Printer {
    running: Arc<AtomicU32>,
    started: Arc<AtomicU32>,
    release: Arc<Semaphore>,
}

impl Printer {
    /// `released` attempts end at once.
    fn new(released: usize) -> Self {
        Self { running: Arc::default(), started: Arc::default(), release: Arc::new(Semaphore::new(released)) }
    }

    fn endpoints(&self, store: &TestStore) -> AsyncEndpoints {
        let builder = support::builder(store).endpoint(Endpoint::post("/print", PRINT));
        builder
            .handler_with(PRINT, self.clone(), print)
            .handler(OTHER, async |_: JobContext<()>| Ok(()))
            .build()
            .unwrap()
    }

    fn started(&self) -> u32 {
        self.started.load(Ordering::SeqCst)
    }

    fn running(&self) -> u32 {
        self.running.load(Ordering::SeqCst)
    }
}

async fn print(_: JobContext<()>, printer: Printer) -> Result<(), async_endpoints::JobError> {
    printer.started.fetch_add(1, Ordering::SeqCst);
    printer.running.fetch_add(1, Ordering::SeqCst);
    printer.release.acquire().await.unwrap().forget();
    printer.running.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

async fn submit(endpoints: &AsyncEndpoints) -> JobId {
    endpoints.submit(PRINT, ()).await.unwrap().job.id
}

async fn status(endpoints: &AsyncEndpoints, id: JobId) -> JobStatus {
    found(endpoints, id).await.status
}

/// Waits until the process has read the pause of `PRINT`.
async fn until_paused(endpoints: &AsyncEndpoints) {
    let queued = endpoints.submit(PRINT, ()).await.unwrap().job;
    let reason = async || endpoints.waiting(&queued).await.map(|waiting| waiting.reason);
    until(async || reason().await == Some(WaitingReason::Paused)).await;
}

#[tokio::test]
async fn pause_and_resume_apply_in_another_process_within_two_seconds() {
    let (store, printer) = (support::store(), Printer::new(Semaphore::MAX_PERMITS));
    let worker = Process::start(printer.endpoints(&store), 2);
    let operator = support::watch(&store);
    let first = submit(&operator).await;
    assert_eq!(support::ended(&operator, first).await.status, JobStatus::Completed);

    let state = operator.pause_type("Print", "no paper", None).await.unwrap();
    assert_eq!(state.pause.as_ref().map(|pause| (pause.reason.as_str(), pause.until)), Some(("no paper", None)));
    tokio::time::sleep(APPLIED).await;
    let (id, started) = (submit(&operator).await, printer.started());
    let other = operator.submit(OTHER, ()).await.unwrap().job.id;
    assert_eq!(support::ended(&operator, other).await.status, JobStatus::Completed, "other types run");
    // Longer than a worker polls.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!((status(&operator, id).await, printer.started()), (JobStatus::Queued, started));
    for endpoints in [&operator, &worker.endpoints] {
        let waiting = endpoints.waiting(&found(&operator, id).await).await.unwrap();
        assert_eq!((waiting.reason, waiting.ahead, waiting.until), (WaitingReason::Paused, Some(0), None));
    }

    assert_eq!(operator.resume_type("Print").await.unwrap().pause, None);
    let resumed = Instant::now();
    assert_eq!(support::ended(&operator, id).await.status, JobStatus::Completed);
    assert!(resumed.elapsed() < APPLIED + Duration::from_secs(1), "{:?}", resumed.elapsed());
    drop(worker);
    store.verify().await;
}

#[tokio::test]
async fn pause_survives_restart_and_leaves_running_attempts() {
    let (store, printer) = (support::store(), Printer::new(0));
    let worker = Process::start(printer.endpoints(&store), 2);
    let running = submit(&worker.endpoints).await;
    until(async || printer.running() == 1).await;
    worker.endpoints.pause_type("Print", "no paper", None).await.unwrap();
    let waiting = submit(&worker.endpoints).await;
    printer.release.add_permits(1);
    assert_eq!(support::ended(&worker.endpoints, running).await.status, JobStatus::Completed);
    drop(worker);

    let worker = Process::start(printer.endpoints(&store), 2);
    let other = worker.endpoints.submit(OTHER, ()).await.unwrap().job.id;
    support::ended(&worker.endpoints, other).await;
    assert_eq!((status(&worker.endpoints, waiting).await, printer.started()), (JobStatus::Queued, 1));
    printer.release.add_permits(1);
    worker.endpoints.resume_type("Print").await.unwrap();
    assert_eq!(support::ended(&worker.endpoints, waiting).await.status, JobStatus::Completed);
    drop(worker);
    store.verify().await;
}

#[tokio::test]
async fn pause_ends_by_itself() {
    let clock = ManualClock::new();
    let store: TestStore = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
    let printer = Printer::new(Semaphore::MAX_PERMITS);
    let worker = Process::start(printer.endpoints(&store), 2);
    let end = clock.now() + Duration::from_secs(60);
    let state = printer.endpoints(&store).pause_type("Print", "no paper", Some(end)).await.unwrap();
    assert_eq!(state.pause.unwrap().until, Some(end));
    until_paused(&worker.endpoints).await;
    let (id, started) = (submit(&worker.endpoints).await, printer.started());
    let waiting = worker.endpoints.waiting(&found(&worker.endpoints, id).await).await.unwrap();
    assert_eq!((waiting.reason, waiting.until), (WaitingReason::Paused, Some(end)));
    clock.advance(Duration::from_secs(60));
    assert_eq!(support::ended(&worker.endpoints, id).await.status, JobStatus::Completed);
    assert!(printer.started() > started);
    let types = worker.endpoints.types().await.unwrap();
    assert!(types.iter().all(|of_type| of_type.pause.is_none()), "{types:?}");
}

#[tokio::test]
async fn limit_holds_the_concurrency_of_another_process() {
    let (store, printer) = (support::store(), Printer::new(0));
    let worker = Process::start(printer.endpoints(&store), 2);
    let operator = support::watch(&store);
    for _ in 0..12 {
        submit(&operator).await;
    }
    until(async || printer.running() == 8).await;
    assert_eq!(operator.limit_type("Print", Some(2)).await.unwrap().per_process, Some(2));
    let limit = async || {
        let workers = operator.workers().await.unwrap();
        workers.iter().flat_map(|live| live.info.types.clone()).find(|of_type| of_type.name.as_str() == "Print")
    };
    until(async || limit().await.is_some_and(|of_type| of_type.limit == 2)).await;
    assert_eq!(printer.running(), 8, "running attempts go on");
    // Seven end. Only one more starts, and runs beside the eighth.
    printer.release.add_permits(7);
    until(async || (printer.started(), printer.running()) == (9, 2)).await;
    // Longer than a worker polls.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!((printer.started(), printer.running()), (9, 2));

    assert_eq!(operator.limit_type("Print", None).await.unwrap().per_process, None);
    until(async || (printer.started(), printer.running()) == (12, 5)).await;
    printer.release.add_permits(5);
    drop(worker);
    store.verify().await;
}

#[tokio::test]
async fn concurrent_operators_change_all_types() {
    let store = support::store();
    let operators: Vec<AsyncEndpoints> = (0..4).map(|_| Printer::new(0).endpoints(&store)).collect();
    let changes = operators.iter().enumerate().map(async |(number, operator)| match number % 2 {
        0 => operator.pause_type("Print", "no paper", None).await,
        _ => operator.limit_type("Other", Some(3)).await,
    });
    futures_util::future::try_join_all(changes).await.unwrap();
    let types = operators[0].types().await.unwrap();
    let changed: Vec<_> =
        types.iter().map(|state| (state.name.as_str(), state.per_process, state.pause.is_some())).collect();
    assert_eq!(changed, [("Other", Some(3), false), ("Print", None, true)]);
}

async fn service() -> Service {
    let store = support::store();
    let endpoints = Printer::new(Semaphore::MAX_PERMITS).endpoints(&store);
    let app = support::routes(&endpoints).merge(endpoints.monitoring_routes());
    Service::serve_app(store, endpoints, app).await
}

async fn call(service: &Service, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = service.client.request(method, service.url(path));
    let request = body.iter().fold(request, |request, body| request.json(body));
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn types_are_steered_over_http() {
    let service = service().await;
    let id = service.submit("/print", Value::Null).await;
    service.ended(id).await;
    let (status, paused) =
        call(&service, Method::POST, "/ops/types/Print/pause", Some(json!({ "reason": "no paper" }))).await;
    assert_eq!((status, &paused["name"], &paused["counts"]["completed"]), (StatusCode::OK, &json!("Print"), &json!(1)));
    assert_eq!((&paused["pause"]["reason"], &paused["pause"]["until"]), (&json!("no paper"), &Value::Null));
    let waiting = service.submit("/print", Value::Null).await;
    assert_eq!(service.job(waiting).await["waiting"]["reason"], "paused");

    let limit = |per_process: u32| Some(json!({ "perProcess": per_process }));
    let (status, limited) = call(&service, Method::PUT, "/ops/types/Print/limit", limit(2)).await;
    assert_eq!((status, &limited["perProcess"]), (StatusCode::OK, &json!(2)));
    assert_eq!(limited["pause"], paused["pause"]);
    let (status, list) = call(&service, Method::GET, "/ops/types", None).await;
    let names: Vec<&str> = list["types"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!((status, names.as_slice()), (StatusCode::OK, &["Other", "Print"][..]));
    assert_eq!(list["types"][1]["counts"]["queued"], 1);

    let (status, resumed) = call(&service, Method::POST, "/ops/types/Print/resume", None).await;
    assert_eq!((status, &resumed["pause"]), (StatusCode::OK, &Value::Null));
    assert_eq!(service.ended(waiting).await["status"], "Completed");
    let (status, unlimited) = call(&service, Method::DELETE, "/ops/types/Print/limit", None).await;
    assert_eq!((status, &unlimited["perProcess"]), (StatusCode::OK, &Value::Null));
    let (_, audit) = call(&service, Method::GET, "/ops/audit", None).await;
    let said = audit["entries"].as_array().unwrap().iter().map(|entry| &entry["values"]);
    let expected = [Value::Null, Value::Null, json!({ "perProcess": 2 }), json!({ "reason": "no paper" })];
    assert!(said.eq(&expected), "{audit}");
    let response = service.client.get(service.url("/ops/types/Print/limit")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "PUT,DELETE");
    service.stop().await;
}

#[tokio::test]
async fn invalid_changes_are_refused() {
    let service = service().await;
    let long = "x".repeat(501);
    let pause = "/ops/types/Print/pause";
    let limit = "/ops/types/Print/limit";
    for (method, path, body, status, code) in [
        (Method::POST, "/ops/types/None/pause", json!({ "reason": "a" }), 404, "TYPE_NOT_FOUND"),
        (Method::POST, "/ops/types/a%20b/pause", json!({ "reason": "a" }), 404, "TYPE_NOT_FOUND"),
        (Method::POST, "/ops/types/None/resume", Value::Null, 404, "TYPE_NOT_FOUND"),
        (Method::DELETE, "/ops/types/None/limit", Value::Null, 404, "TYPE_NOT_FOUND"),
        (Method::POST, pause, json!({ "reason": " " }), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({ "reason": long }), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({ "reason": "pay\u{202e}oga" }), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({}), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({ "reason": "a", "untl": null }), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({ "reason": "a", "until": "2020-01-01T00:00:00Z" }), 422, "INVALID_PAUSE"),
        (Method::POST, pause, json!({ "reason": "a", "until": "soon" }), 422, "INVALID_PAUSE"),
        (Method::PUT, limit, json!({ "perProcess": 0 }), 422, "INVALID_LIMIT"),
        (Method::PUT, limit, json!({ "perProcess": 100_001 }), 422, "INVALID_LIMIT"),
        (Method::PUT, limit, json!({ "perProcess": -1 }), 422, "INVALID_LIMIT"),
        (Method::PUT, limit, json!({}), 422, "INVALID_LIMIT"),
    ] {
        let (answered, problem) = call(&service, method, path, Some(body.clone())).await;
        assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{path} {body}: {problem}");
    }
    let (_, problem) = call(&service, Method::PUT, limit, Some(json!({ "perProcess": 0 }))).await;
    let detail = r#"perProcess: invalid value "0", expected 1 or more: pause the type to stop it"#;
    assert_eq!((&problem["detail"], &problem["errors"][0]["pointer"]), (&json!(detail), &json!("#/perProcess")));
    let longest = "x".repeat(500);
    let (status, _) = call(&service, Method::POST, pause, Some(json!({ "reason": longest }))).await;
    assert_eq!(status, StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn series_are_equal_in_every_process() {
    let clock = ManualClock::new();
    let store: TestStore = Arc::new(Checked::new(MemoryStore::with_clock(clock.clone())));
    let (first, second) = (Printer::new(9).endpoints(&store), support::watch(&store));
    let began = clock.now();
    submit(&first).await;
    first.run_until_idle().await.unwrap();
    clock.advance(Duration::from_secs(60));
    first.submit(OTHER, ()).await.unwrap();
    let window = Duration::from_secs(120);
    let series = first.series(window, None).await.unwrap();
    assert_eq!(second.series(window, None).await.unwrap(), series);
    let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names, ["Other", "Print"]);
    let [earlier, now] = &series[1].points[..] else { panic!("two minutes: {series:?}") };
    assert_eq!(earlier.at, Timestamp::from_minute(began.minute()));
    assert_eq!((earlier.arrivals, earlier.completed, now.arrivals, now.completed), (1, 1, 0, 0));
    assert!(earlier.processing_time.p99.is_some() && now.processing_time.p99.is_none());
    let print = first.series(Duration::from_secs(60), Some(series[1].name.clone())).await.unwrap();
    assert_eq!((print.len(), print[0].points.as_slice()), (1, &series[1].points[1..]));
}

#[tokio::test]
async fn series_over_http_have_steps_of_a_minute() {
    let service = service().await;
    let id = service.submit("/print", Value::Null).await;
    service.ended(id).await;
    let (status, all) = call(&service, Method::GET, "/ops/series?window=21600&name=Print", None).await;
    assert_eq!((status, &all["stepSeconds"]), (StatusCode::OK, &json!(60)));
    assert_eq!(
        (&all["series"][0]["name"], all["series"][0]["points"].as_array().unwrap().len()),
        (&json!("Print"), 360)
    );
    let (_, none) = call(&service, Method::GET, "/ops/series?name=Unknown", None).await;
    assert_eq!(none["series"], json!([]));
    for bad in ["window=0", "window=21601", "window=1h", "name=a%20b", "step=5", "window=60&window=60"] {
        let (status, problem) = call(&service, Method::GET, &format!("/ops/series?{bad}"), None).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_QUERY")), "{bad}");
    }
    service.stop().await;
}
