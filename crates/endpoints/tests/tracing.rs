//! Spans of requests, jobs and store calls: names, kinds, links, attributes, status and sampling.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobError, JobStatus, JobType, Options, Propagation, RetryOutcome, Telemetry,
    telemetry::opentelemetry::trace::{SpanId, SpanKind, Status, TraceId, Tracer, TracerProvider},
    telemetry::trace::LinkedSampler,
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use serde_json::{Value, json};
use support::{Service, ended, flaky_store, quick, routes, store, until};
use tokio::sync::Notify;

const WORK: JobType<u32, String> = JobType::new("Work");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Fails as many attempts as the request says. Returns the attempt's own trace id.
async fn work(ctx: JobContext<u32>) -> Result<String, JobError> {
    match ctx.attempt() > *ctx.request() {
        true => Ok(ctx.trace_id().to_string()),
        false => Err(JobError::retryable("NOT_YET", "later")),
    }
}

/// Everything that one process exports.
struct Traced {
    telemetry: Telemetry,
    provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
}

impl Traced {
    fn new() -> Self {
        Self::sampled(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
    }

    fn sampled(sampler: Sampler) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(LinkedSampler::new(sampler))
            .build();
        let telemetry = Telemetry::builder().with_tracer_provider(provider.clone()).build().unwrap();
        Self { telemetry, provider, exporter }
    }

    async fn service(&self, options: Options) -> Service {
        let store = store();
        let endpoints = support::builder(&store).options(options).telemetry(&self.telemetry);
        let endpoints = endpoints.endpoint(Endpoint::post("/work/{kind}", WORK)).handler(WORK, work).build().unwrap();
        Service::serve(store, endpoints).await
    }

    fn spans(&self) -> Vec<SpanData> {
        self.provider.force_flush().unwrap();
        self.exporter.get_finished_spans().unwrap()
    }

    fn named(&self, name: &str) -> Vec<SpanData> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// The spans of this name, when there are so many.
    async fn wait_for<const N: usize>(&self, name: &str) -> [SpanData; N] {
        until(async || self.named(name).len() >= N).await;
        self.named(name).try_into().unwrap()
    }
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    span.attributes.iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect()
}

fn assert_attributes(span: &SpanData, expected: &[(&str, &str)]) {
    let found = attributes(span);
    for (key, value) in expected {
        assert_eq!(found.get(*key).map(String::as_str), Some(*value), "{key} of {}: {found:?}", span.name);
    }
}

fn links(span: &SpanData) -> Vec<(TraceId, SpanId)> {
    span.links.iter().map(|link| (link.span_context.trace_id(), link.span_context.span_id())).collect()
}

fn ids(span: &SpanData) -> (TraceId, SpanId) {
    (span.span_context.trace_id(), span.span_context.span_id())
}

async fn submit(service: &Service, failures: u32, flags: &str) -> Value {
    let request = service.client.post(service.url("/work/a?secret=hush")).json(&failures);
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"));
    request.header("x-request-id", "r-17").send().await.unwrap().json().await.unwrap()
}

fn id(job: &Value) -> async_endpoints::JobId {
    job["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn spans_of_a_job_follow_the_conventions() {
    let traced = Traced::new();
    let service = traced.service(quick()).await;
    let job = submit(&service, 0, "01").await;
    let result = service.ended(id(&job)).await["result"].clone();
    let [server] = traced.wait_for("POST /work/{kind}").await;
    assert_eq!((server.span_kind.clone(), server.parent_span_id.to_string()), (SpanKind::Server, CALLER.to_owned()));
    assert!(server.parent_span_is_remote && server.status == Status::Unset);
    let address = service.address().rsplit_once(':').unwrap();
    assert_attributes(
        &server,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/work/{kind}"),
            ("url.path", "/work/a"),
            ("url.scheme", "http"),
            ("http.response.status_code", "202"),
            ("server.address", address.0),
            ("server.port", address.1),
            ("network.protocol.version", "1.1"),
        ],
    );
    assert!(!attributes(&server).contains_key("client.address"), "only if the application wants it");
    let [send] = traced.wait_for("send Work").await;
    assert_eq!((send.span_kind.clone(), send.parent_span_id), (SpanKind::Producer, server.span_context.span_id()));
    let common = [
        ("messaging.system", "asyncendpoints"),
        ("messaging.destination.name", "Work"),
        ("messaging.message.id", job["id"].as_str().unwrap()),
        ("messaging.message.conversation_id", "r-17"),
    ];
    assert_attributes(&send, &common);
    assert_attributes(&send, &[("messaging.operation.name", "send"), ("messaging.operation.type", "send")]);
    let [insert] = traced.wait_for("insert").await;
    assert_eq!((insert.span_kind.clone(), insert.parent_span_id), (SpanKind::Client, send.span_context.span_id()));
    assert_attributes(&insert, &[("db.system.name", "memory"), ("db.operation.name", "insert")]);
    let [process] = traced.wait_for("process Work").await;
    assert_eq!((process.span_kind.clone(), process.parent_span_id), (SpanKind::Consumer, SpanId::INVALID));
    assert_eq!((links(&process), json!(process.span_context.trace_id().to_string())), (vec![ids(&send)], result));
    assert_attributes(&process, &common);
    assert_attributes(
        &process,
        &[
            ("messaging.operation.name", "process"),
            ("async_job.attempt", "1"),
            ("async_job.max_attempts", "4"),
            ("async_job.outcome", "completed"),
            ("async_job.status", "Completed"),
        ],
    );
    assert_eq!(process.status, Status::Unset);
    for operation in ["claim", "settle"] {
        let [batch] = traced.wait_for(operation).await;
        assert_eq!((links(&batch), batch.span_kind.clone()), (vec![ids(&process)], SpanKind::Client));
        assert_attributes(&batch, &[("messaging.batch.message_count", "1"), ("db.operation.name", operation)]);
    }
    service.stop().await;
    for span in traced.spans() {
        let text = format!("{span:?}");
        assert!(!text.contains("hush"), "the query string: {text}");
        for deprecated in [
            "http.method",
            "http.url",
            "http.target",
            "http.status_code",
            "net.",
            "messaging.operation\"",
            "db.system\"",
        ] {
            assert!(!text.contains(&format!("\"{deprecated}")), "{deprecated}: {text}");
        }
        assert!(span.events.events.is_empty() && span.end_time >= span.start_time);
    }
}

#[tokio::test]
async fn retried_attempt_links_to_the_one_before() {
    let traced = Traced::new();
    let service = traced.service(quick()).await;
    let job = submit(&service, 2, "01").await;
    assert_eq!(service.ended(id(&job)).await["status"], "Completed");
    let [send] = traced.wait_for("send Work").await;
    let [first, second, third] = traced.wait_for("process Work").await;
    assert_eq!(links(&first), [ids(&send)]);
    assert_eq!(links(&second), [ids(&send), ids(&first)]);
    assert_eq!(links(&third), [ids(&send), ids(&second)]);
    for failed in [&first, &second] {
        assert_eq!(failed.status, Status::error("NOT_YET"));
        assert_attributes(failed, &[("error.type", "NOT_YET"), ("async_job.outcome", "retried")]);
    }
    assert_eq!(third.status, Status::Unset);
    assert_attributes(&third, &[("async_job.attempt", "3")]);
    service.stop().await;
}

#[tokio::test]
async fn attempts_are_children_if_wanted() {
    let traced = Traced::new();
    let service = traced.service(Options { propagation: Propagation::Child, ..quick() }).await;
    let job = submit(&service, 1, "01").await;
    assert_eq!(service.ended(id(&job)).await["result"], TRACE);
    let [send] = traced.wait_for("send Work").await;
    let [first, second] = traced.wait_for("process Work").await;
    for attempt in [&first, &second] {
        assert_eq!(attempt.parent_span_id, send.span_context.span_id());
        assert_eq!(attempt.span_context.trace_id().to_string(), TRACE);
    }
    assert_eq!((links(&first), links(&second)), (vec![], vec![ids(&first)]));
    service.stop().await;
}

#[tokio::test]
async fn attempts_are_unrelated_if_wanted() {
    let traced = Traced::new();
    let service = traced.service(Options { propagation: Propagation::None, ..quick() }).await;
    let job = submit(&service, 1, "01").await;
    assert_eq!(service.ended(id(&job)).await["status"], "Completed");
    let [first, second] = traced.wait_for("process Work").await;
    assert_eq!((links(&first), links(&second)), (vec![], vec![ids(&first)]));
    assert_ne!(first.span_context.trace_id().to_string(), TRACE);
    service.stop().await;
}

#[tokio::test]
async fn unsampled_caller_exports_neither_half() {
    let traced = Traced::new();
    let service = traced.service(quick()).await;
    let job = submit(&service, 1, "02").await;
    let ended = service.ended(id(&job)).await;
    assert_eq!((&ended["status"], &ended["traceId"]), (&json!("Completed"), &json!(TRACE)));
    let stored = stored_trace(&service, &job).await;
    assert!(stored.ends_with("-02"), "unknown flags are kept: {stored}");
    service.stop().await;
    // Reading the job is a request of its own, without a caller's context.
    let reads = |name: &String| name == "get" || name.starts_with("GET ");
    let names: Vec<_> =
        traced.spans().into_iter().map(|span| span.name.to_string()).filter(|name| !reads(name)).collect();
    assert!(names.is_empty(), "{names:?}");
}

async fn stored_trace(service: &Service, job: &Value) -> String {
    let async_endpoints::JobLookup::Found(job) = service.endpoints.job(id(job)).await.unwrap() else { panic!("gone") };
    job.trace.unwrap().traceparent.to_string()
}

#[tokio::test]
async fn sampler_keeps_both_halves_of_each_job() {
    let traced = Traced::sampled(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.5))));
    let service = traced.service(quick()).await;
    for _ in 0..40 {
        let accepted = service.endpoints.submit(WORK, 0).await.unwrap();
        ended(&service.endpoints, accepted.job.id).await;
    }
    service.stop().await;
    let sent: Vec<_> = traced.named("send Work").iter().map(ids).collect();
    let linked: Vec<_> = traced.named("process Work").iter().flat_map(links).collect();
    assert!((1..40).contains(&sent.len()), "{} of 40", sent.len());
    assert_eq!((sent.len(), sent), (linked.len(), linked));
}

#[tokio::test]
async fn another_process_links_to_the_submission() {
    let (front, back) = (Traced::new(), Traced::new());
    let store = store();
    let front_end = AsyncEndpoints::builder(store.clone()).telemetry(&front.telemetry).build().unwrap();
    let job = front_end.submit(WORK, 0).await.unwrap().job;
    let back_end = AsyncEndpoints::builder(store).telemetry(&back.telemetry).handler(WORK, work).build().unwrap();
    back_end.run_until_idle().await.unwrap();
    assert_eq!(ended(&back_end, job.id).await.status, JobStatus::Completed);
    let [send] = front.wait_for("send Work").await;
    let [process] = back.wait_for("process Work").await;
    assert_eq!(links(&process), [ids(&send)]);
    assert_eq!(job.trace.unwrap().trace_id(), send.span_context.trace_id().to_string());
    assert!(front.named("process Work").is_empty() && back.named("send Work").is_empty());
}

#[tokio::test]
async fn ids_exist_without_telemetry() {
    let service =
        Service::start(|builder| builder.endpoint(Endpoint::post("/work/{kind}", WORK)).handler(WORK, work)).await;
    let job: Value = service.post("/work/a", json!(0)).await.json().await.unwrap();
    let trace = job["traceId"].as_str().unwrap().to_owned();
    let stored = stored_trace(&service, &job).await;
    assert_eq!((trace.len(), &stored[3..35], &stored[52..]), (32, &*trace, "-00"));
    let attempt = service.ended(id(&job)).await["result"].as_str().unwrap().to_owned();
    assert!(attempt.len() == 32 && attempt != trace);
    let problem: Value = service.post("/work/a", json!("x")).await.json().await.unwrap();
    assert_eq!(problem["traceId"].as_str().unwrap().len(), 32);
    service.stop().await;
}

#[tokio::test]
async fn server_error_alone_marks_the_server_span() {
    let traced = Traced::new();
    let service = traced.service(Options { max_queue_size: 0, ..quick() }).await;
    let full: Value = submit(&service, 0, "01").await;
    assert_eq!((&full["code"], &full["traceId"]), (&json!("QUEUE_FULL"), &json!(TRACE)));
    let invalid: Value = service.post("/work/a", json!("x")).await.json().await.unwrap();
    assert_eq!(invalid["status"], 422);
    let [first, second] = traced.wait_for("POST /work/{kind}").await;
    assert_eq!((first.status.clone(), second.status.clone()), (Status::error("503"), Status::Unset));
    assert_attributes(&first, &[("error.type", "503")]);
    assert_attributes(&second, &[("http.response.status_code", "422")]);
    let [send] = traced.wait_for("send Work").await;
    assert_eq!(send.status, Status::error("QUEUE_FULL"));
    service.stop().await;
}

#[tokio::test]
async fn every_ended_attempt_has_one_ended_span() {
    const HANG: JobType<(), ()> = JobType::new("Hang");
    let traced = Traced::new();
    let store = store();
    let hang = async |ctx: JobContext<()>| {
        ctx.cancellation().cancelled().await;
        ctx.check_canceled()
    };
    let options = Options { shutdown: Duration::from_millis(500), ..quick() };
    let endpoints = support::builder(&store).options(options).telemetry(&traced.telemetry);
    let endpoints = endpoints.endpoint(Endpoint::post("/hang", HANG)).handler(HANG, hang).build().unwrap();
    let app = routes(&endpoints);
    let service = Service::serve_app(store, endpoints, app).await;
    let canceled = service.submit("/hang", json!(null)).await;
    let released = service.submit("/hang", json!(null)).await;
    until(async || service.endpoints.worker_status().slots.busy == 2).await;
    service.cancel(canceled).await;
    ended(&service.endpoints, canceled).await;
    let (endpoints, _) = (service.endpoints.clone(), service.stop().await);
    let outcomes: BTreeMap<String, String> = traced
        .named("process Hang")
        .iter()
        .map(attributes)
        .map(|found| (found["messaging.message.id"].clone(), found["async_job.outcome"].clone()))
        .collect();
    let expected = [(canceled, "canceled"), (released, "released")].map(|(id, end)| (id.to_string(), end.to_owned()));
    assert_eq!((outcomes, traced.named("process Hang").len()), (expected.into(), 2));
    let async_endpoints::JobLookup::Found(job) = endpoints.job(released).await.unwrap() else { panic!("gone") };
    assert_eq!(job.status, JobStatus::Queued);
}

#[tokio::test]
async fn attempt_with_lost_lease_ends_its_span() {
    const SLOW: JobType<(), ()> = JobType::new("Slow");
    let traced = Traced::new();
    let (_, flaky) = flaky_store();
    let started = Arc::new(Notify::new());
    let notify = started.clone();
    let slow = move |ctx: JobContext<()>| {
        let notify = notify.clone();
        async move {
            notify.notify_one();
            if ctx.attempt() == 1 {
                ctx.cancellation().cancelled().await;
            }
            Ok::<_, JobError>(())
        }
    };
    let builder = AsyncEndpoints::builder(flaky.clone()).options(quick()).telemetry(&traced.telemetry);
    let endpoints = builder.handler(SLOW, slow).build().unwrap();
    let job = endpoints.submit(SLOW, ()).await.unwrap().job;
    let running = endpoints.clone();
    let run = tokio::spawn(async move { running.run().await });
    started.notified().await;
    // Without renewals and settlements, the lease expires.
    flaky.outage(true);
    let [first] = traced.wait_for("process Slow").await;
    assert_eq!(first.status, Status::error("WORKER_LOST"));
    assert_attributes(&first, &[("async_job.outcome", "lost"), ("error.type", "WORKER_LOST")]);
    flaky.outage(false);
    assert_eq!(ended(&endpoints, job.id).await.status, JobStatus::Completed);
    let [_, second] = traced.wait_for("process Slow").await;
    let [send] = traced.wait_for("send Slow").await;
    assert_eq!(links(&second), [ids(&send)], "a lost attempt stores no span");
    endpoints.shutdown();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn retry_by_an_operator_is_a_submission() {
    let traced = Traced::new();
    let fail = async |_: JobContext<u32>| Err::<String, _>(JobError::permanent("NEVER", "it cannot work"));
    let builder = AsyncEndpoints::builder(store()).telemetry(&traced.telemetry);
    let endpoints = builder.handler(WORK, fail).build().unwrap();
    let job = endpoints.submit(WORK, 0).await.unwrap().job;
    endpoints.run_until_idle().await.unwrap();
    let RetryOutcome::Created(retried) = endpoints.retry(job.id).await.unwrap() else { panic!("not retried") };
    let [_, send] = traced.wait_for("send Work").await;
    assert_attributes(&send, &[("messaging.destination.name", "Work")]);
    assert_attributes(&send, &[("messaging.message.id", &retried.id.to_string())]);
    assert_eq!(retried.trace.unwrap().trace_id(), send.span_context.trace_id().to_string());
    let [process] = traced.wait_for("process Work").await;
    assert_eq!(process.status, Status::error("NEVER"));
}

#[tokio::test]
async fn spans_of_a_handler_are_below_its_attempt() {
    const BLOCK: JobType<(), ()> = JobType::new("Block");
    let traced = Traced::new();
    let start = |provider: &SdkTracerProvider, name: &'static str| drop(provider.tracer("app").start(name));
    let (provider, blocking) = (traced.provider.clone(), traced.provider.clone());
    let handle = move |_: JobContext<u32>| {
        start(&provider, "in a handler");
        std::future::ready(Ok::<_, JobError>(String::new()))
    };
    let block = move |_: JobContext<()>| {
        start(&blocking, "on a thread");
        Ok::<_, JobError>(())
    };
    let builder = AsyncEndpoints::builder(store()).telemetry(&traced.telemetry);
    let endpoints = builder.handler(WORK, handle).blocking_handler(BLOCK, block).build().unwrap();
    endpoints.submit(WORK, 0).await.unwrap();
    endpoints.submit(BLOCK, ()).await.unwrap();
    endpoints.run_until_idle().await.unwrap();
    for (name, attempt) in [("in a handler", "process Work"), ("on a thread", "process Block")] {
        let ([own], [process]) = (traced.wait_for(name).await, traced.wait_for(attempt).await);
        assert_eq!((own.span_context.trace_id(), own.parent_span_id), ids(&process), "{name}");
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn outgoing_request_joins_the_trace() {
    let traced = Traced::new();
    let service = traced.service(quick()).await;
    let tracing = traced.telemetry.tracing();
    let response = tracing.send(service.client.get(service.url("/jobs/x?secret=hush"))).await.unwrap();
    assert_eq!(response.status(), 404);
    let [client] = traced.wait_for("GET").await;
    let [server] = traced.wait_for("GET /jobs/{id}").await;
    assert_eq!((server.span_context.trace_id(), server.parent_span_id), ids(&client));
    assert_eq!((client.status.clone(), server.status.clone()), (Status::error("404"), Status::Unset));
    assert_attributes(&client, &[("url.full", &service.url("/jobs/x")), ("http.response.status_code", "404")]);
    service.stop().await;
}
