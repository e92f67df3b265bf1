//! The log lines about the life of a job: which ones are written, where, and with which fields.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, Once},
    time::Duration,
};

use async_endpoints::{AsyncEndpoints, Endpoint, Enrich, JobContext, JobError, JobId, JobName, JobType, Options};
use async_endpoints_core::{
    JobStore as _,
    store::{Claim, LeaseToken, StoreOperation, TypeQuota, WorkerId},
};
use async_endpoints_testkit::When;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::{Service, TestStore, builder, flaky_store, quick, store, until};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

/// A log line with the fields of the spans around it.
#[derive(Clone, Debug)]
struct Line {
    level: &'static str,
    fields: Fields,
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Line {
    fn text(&self, field: &str) -> Option<&str> {
        self.fields.0.get(field)?.as_str()
    }

    fn has_number(&self, field: &str) -> bool {
        self.fields.0.get(field).is_some_and(Value::is_number)
    }

    /// Level and event.
    fn event(&self) -> Option<String> {
        Some(format!("{} {}", self.level, self.text("event")?))
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

struct Collect;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collect {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            for (name, value) in &span.extensions().get::<Fields>().unwrap().0 {
                fields.0.entry(name).or_insert_with(|| value.clone());
            }
        }
        event.record(&mut fields);
        LINES.lock().unwrap().push(Line { level: event.metadata().level().as_str(), fields });
    }
}

/// Collects the lines of this process.
fn collect() {
    static COLLECTING: Once = Once::new();
    COLLECTING.call_once(|| tracing_subscriber::registry().with(Collect).init());
}

/// The lines whose field has this value.
fn lines(field: &str, value: &impl ToString) -> Vec<Line> {
    let value = value.to_string();
    LINES.lock().unwrap().iter().filter(|line| line.text(field) == Some(&value)).cloned().collect()
}

/// Levels and events of a job's lines.
fn events(id: JobId) -> Vec<String> {
    lines("job_id", &id).iter().filter_map(Line::event).collect()
}

/// Waits for the terminal line of a job, which may follow its end.
async fn terminal_line(id: JobId) {
    let is_terminal = |event: &String| ["completed", "failed", "canceled"].iter().any(|end| event.ends_with(end));
    until(async || events(id).iter().any(is_terminal)).await;
}

fn event(id: JobId, name: &str) -> Line {
    lines("job_id", &id).into_iter().find(|line| line.text("event") == Some(name)).unwrap()
}

const WORK: JobType<Value, Value> = JobType::new("Work").max_retries(1);

/// Logs a line, then does what the request says.
async fn work(ctx: JobContext<Value>) -> Result<Value, JobError> {
    tracing::info!(own = true, "the handler's own line");
    match ctx.request().as_str() {
        Some("fail") => Err(std::io::Error::other("disk full"))?,
        Some("panic") => panic!("paper jam"),
        Some("wait") => {
            ctx.cancellation().cancelled().await;
            Err(JobError::canceled())
        }
        _ => Ok(Value::Null),
    }
}

async fn service() -> Service {
    collect();
    Service::start(|builder| builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work)).await
}

#[tokio::test]
async fn completed_job_has_one_line_per_step() {
    let service = service().await;
    let id = service.submit("/work", json!("go")).await;
    terminal_line(id).await;
    service.stop().await;
    assert_eq!(events(id), ["INFO job.accepted", "INFO job.started", "INFO job.completed"]);
    assert!(event(id, "job.started").has_number("queue_time_ms"));
    assert!(event(id, "job.completed").has_number("processing_time_ms"));
}

#[tokio::test]
async fn lines_of_an_attempt_are_correlated() {
    let service = service().await;
    let request = service.client.post(service.url("/work")).header("x-request-id", "r-17").json(&json!("go"));
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "r-17");
    let job = response.json::<Value>().await.unwrap();
    let id: JobId = job["id"].as_str().unwrap().parse().unwrap();
    terminal_line(id).await;
    service.stop().await;
    let of_attempt: Vec<_> = lines("job_id", &id).into_iter().filter(|line| line.text("worker_id").is_some()).collect();
    let messages: Vec<_> = of_attempt.iter().map(|line| line.text("message").unwrap()).collect();
    assert_eq!(messages, ["the attempt starts", "the handler's own line", "the job is completed"]);
    for line in &of_attempt {
        assert_eq!(line.text("job_name"), Some("Work"));
        assert_eq!(line.text("request_id"), Some("r-17"));
        assert!(line.has_number("attempt"));
        assert_eq!(line.text("trace_id").map(str::len), Some(32));
        assert_eq!(line.text("span_id"), of_attempt[0].text("span_id"));
    }
    let accepted = event(id, "job.accepted");
    assert_eq!(accepted.text("request_id"), Some("r-17"));
    assert_eq!(accepted.text("trace_id"), job["traceId"].as_str());
}

#[tokio::test]
async fn failed_attempts_explain_themselves() {
    let service = service().await;
    let id = service.submit("/work", json!("fail")).await;
    terminal_line(id).await;
    let expected =
        ["INFO job.accepted", "INFO job.started", "WARN job.retry_scheduled", "INFO job.started", "ERROR job.failed"];
    assert_eq!(events(id), expected);
    let (retried, failed) = (event(id, "job.retry_scheduled"), event(id, "job.failed"));
    for line in [&retried, &failed] {
        assert_eq!((line.text("code"), line.text("error")), (Some("HANDLER_ERROR"), Some("disk full")));
        assert!(line.has_number("processing_time_ms"));
    }
    assert!(retried.has_number("delay_ms") && !failed.has_number("delay_ms"));
    let logs = service.client.get(service.url(&format!("/jobs/{id}/logs"))).send().await.unwrap().text().await.unwrap();
    let kept: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept: Vec<_> = kept.iter().map(|line| (&line["attempt"], &line["level"], &line["fields"]["error"])).collect();
    let cause = &json!("disk full");
    assert_eq!(kept, [(&json!(1), &json!("WARN"), cause), (&json!(2), &json!("ERROR"), cause)]);
    service.stop().await;
}

#[tokio::test]
async fn panic_line_has_message_and_location() {
    let service = service().await;
    let id = service.submit("/work", json!("panic")).await;
    terminal_line(id).await;
    service.stop().await;
    let line = event(id, "job.failed");
    assert_eq!((line.text("code"), line.text("error")), (Some("HANDLER_PANIC"), Some("paper jam")));
    assert!(line.text("location").unwrap().starts_with("crates/endpoints/tests/lifecycle.rs:"));
}

#[tokio::test]
async fn canceled_job_has_one_terminal_line() {
    let service = service().await;
    let running = service.submit("/work", json!("wait")).await;
    until(async || events(running).len() == 2).await;
    service.cancel(running).await;
    terminal_line(running).await;
    let waiting = service.endpoints.submit(WORK, json!("go")).delay(Duration::from_secs(60)).await.unwrap().job.id;
    service.cancel(waiting).await;
    service.cancel(waiting).await;
    service.stop().await;
    assert_eq!(events(running), ["INFO job.accepted", "INFO job.started", "INFO job.canceled"]);
    assert!(event(running, "job.canceled").has_number("processing_time_ms"));
    assert_eq!(events(waiting), ["INFO job.accepted", "INFO job.canceled"]);
}

#[tokio::test]
async fn released_job_completes_elsewhere() {
    let service = service().await;
    let id = service.submit("/work", json!("wait")).await;
    until(async || events(id).len() == 2).await;
    let store = service.store.clone();
    service.stop().await;
    assert_eq!(events(id), ["INFO job.accepted", "INFO job.started", "INFO job.released"]);
    let next = builder(&store).handler(WORK, async |_: JobContext<Value>| Ok(Value::Null)).build().unwrap();
    next.run_until_idle().await.unwrap();
    assert_eq!(events(id)[3..], ["INFO job.started", "INFO job.completed"]);
}

#[tokio::test]
async fn settlement_with_lost_reply_has_one_line() {
    collect();
    let (store, flaky) = flaky_store();
    let endpoints = AsyncEndpoints::builder(flaky.clone()).options(quick()).handler(WORK, work).build().unwrap();
    let id = endpoints.submit(WORK, json!("go")).await.unwrap().job.id;
    flaky.fail_next(StoreOperation::Settle, When::After);
    endpoints.run_until_idle().await.unwrap();
    assert_eq!(events(id), ["INFO job.accepted", "INFO job.started", "INFO job.completed"]);
    store.verify().await;
}

/// Starts an attempt as a worker does that dies at once.
async fn lose(store: &TestStore, id: JobId) {
    let name = JobName::new("Work").unwrap();
    let quotas = vec![TypeQuota { name, max: 1, timeout: Duration::from_secs(1) }];
    let (worker, token) = (WorkerId(uuid::Uuid::now_v7()), LeaseToken::random());
    let claim = Claim { worker, token, quotas, max: 1, max_bytes: 1 << 20, lease: Duration::from_millis(20) };
    let claimed = store.claim(&claim).await.unwrap();
    assert_eq!(claimed.attempts[0].lease.job, id);
}

async fn lost(max_losses: u32) -> (AsyncEndpoints, TestStore, JobId) {
    collect();
    let store = store();
    let options = Options { max_losses, ..quick() };
    let endpoints = builder(&store).options(options).handler(WORK, work).build().unwrap();
    let id = endpoints.submit(WORK, json!("go")).await.unwrap().job.id;
    lose(&store, id).await;
    (endpoints, store, id)
}

#[tokio::test]
async fn lost_job_is_recovered_by_one_process() {
    let (endpoints, store, id) = lost(1).await;
    let other = builder(&store).build().unwrap();
    let running = [endpoints.clone(), other.clone()].map(|each| tokio::spawn(async move { each.run().await }));
    terminal_line(id).await;
    [endpoints, other].iter().for_each(AsyncEndpoints::shutdown);
    for each in running {
        each.await.unwrap().unwrap();
    }
    let expected = ["INFO job.accepted", "WARN job.recovered", "INFO job.started", "INFO job.completed"];
    assert_eq!(events(id), expected);
    assert!(event(id, "job.recovered").has_number("attempt"));
    store.verify().await;
}

#[tokio::test]
async fn job_with_too_many_losses_has_one_terminal_line() {
    let (endpoints, store, id) = lost(0).await;
    let running = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { endpoints.run().await }
    });
    terminal_line(id).await;
    endpoints.shutdown();
    running.await.unwrap().unwrap();
    assert_eq!(events(id), ["INFO job.accepted", "ERROR job.failed"]);
    assert_eq!(event(id, "job.failed").text("code"), Some("WORKER_LOST"));
    store.verify().await;
}

fn with_key(service: &Service, path: &str, body: &Value) -> RequestBuilder {
    service.client.post(service.url(path)).header("idempotency-key", "k").json(body)
}

#[tokio::test]
async fn repeats_and_refusals_have_one_line_each() {
    collect();
    const LIMITED: JobType<u32, ()> = JobType::new("Limited").max_queue_size(1);
    let service = Service::start(|builder| builder.endpoint(Endpoint::post("/limited", LIMITED))).await;
    for body in [json!(1), json!(1), json!(2), json!("canary")] {
        with_key(&service, "/limited", &body).send().await.unwrap();
    }
    service.post("/limited", json!(3)).await;
    service.stop().await;
    let found: Vec<_> = lines("job_name", &"Limited")
        .iter()
        .filter_map(|line| Some((line.event()?, line.text("code").unwrap_or_default().to_owned())))
        .collect();
    let expected = [
        ("INFO job.accepted", ""),
        ("INFO job.duplicate", ""),
        ("INFO job.rejected", "IDEMPOTENCY_CONFLICT"),
        ("INFO job.rejected", "INVALID_REQUEST"),
        ("WARN job.rejected", "QUEUE_FULL"),
    ];
    assert_eq!(found, expected.map(|(event, code)| (event.to_owned(), code.to_owned())));
}

#[tokio::test]
async fn retry_by_operator_is_an_accepted_job() {
    let service = service().await;
    let id = service.submit("/work", json!("panic")).await;
    terminal_line(id).await;
    let retry = service.client.post(service.url(&format!("/jobs/{id}/retry"))).send().await.unwrap();
    let new: JobId = retry.json::<Value>().await.unwrap()["id"].as_str().unwrap().parse().unwrap();
    terminal_line(new).await;
    service.stop().await;
    assert_eq!(event(new, "job.accepted").text("retry_of"), Some(&*id.to_string()));
}

/// A request with a secret in every part that no line may have.
fn with_secrets(service: &Service, body: &Value) -> RequestBuilder {
    let request = service.client.post(service.url("/work?token=canary")).json(body);
    let secrets = ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-user-id", "user-agent"];
    secrets.into_iter().fold(request, |request, name| request.header(name, "canary"))
}

#[tokio::test]
async fn secrets_of_a_request_are_in_no_line() {
    let service = service().await;
    let job = with_secrets(&service, &json!(["canary"])).send().await.unwrap().json::<Value>().await.unwrap();
    terminal_line(job["id"].as_str().unwrap().parse().unwrap()).await;
    let bad = with_secrets(&service, &json!(0)).body("{\"canary\":").send().await.unwrap();
    assert_eq!(bad.status(), 400);
    service.stop().await;
    let all = format!("{:?}", LINES.lock().unwrap());
    assert!(!all.contains("canary"), "{all}");
}

#[tokio::test]
async fn captured_credential_is_in_no_line() {
    collect();
    let captured_headers = ["authorization", "x-api-key"].map(str::to_owned).to_vec();
    let service = Service::start(|builder| {
        let builder = builder.options(Options { captured_headers, ..quick() }).endpoint(Endpoint::post("/work", WORK));
        builder.handler(WORK, async |ctx: JobContext<Value>| {
            Ok(json!([ctx.header("authorization"), ctx.header("x-api-key"), ctx.header("cookie")]))
        })
    })
    .await;
    let request = with_secrets(&service, &Value::Null).header("prefer", "wait=30");
    let job = request.send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(job["result"], json!(["canary", "canary", null]));
    terminal_line(job["id"].as_str().unwrap().parse().unwrap()).await;
    service.stop().await;
    let all = format!("{:?}", LINES.lock().unwrap());
    assert!(!all.contains("canary"), "{all}");
}

#[tokio::test]
async fn enrichment_names_the_caller() {
    collect();
    let enrich = Enrich { user_id: true, client_address: true, user_agent: true, trust_proxy: false };
    let service = Service::start(|builder| {
        let builder = builder.options(Options { enrich, ..quick() });
        builder.endpoint(Endpoint::post("/work", WORK)).handler(WORK, work)
    })
    .await;
    let request = service.client.post(service.url("/work")).json(&json!("go"));
    let request = request.header("x-user-id", "anna").header("user-agent", "browser").header("x-forwarded-for", "::9");
    let response = request.send().await.unwrap();
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let job = response.json::<Value>().await.unwrap();
    let id = job["id"].as_str().unwrap().parse().unwrap();
    terminal_line(id).await;
    service.stop().await;
    for line in ["job.accepted", "job.started", "job.completed"].map(|name| event(id, name)) {
        assert_eq!(line.text("request_id"), Some(&*request_id));
        let caller = ["user_id", "client_address", "user_agent"].map(|name| line.text(name));
        assert_eq!(caller, [Some("anna"), Some("127.0.0.1"), Some("browser")]);
    }
}
