//! Event streams of jobs, and their logs.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{sync::Arc, time::Duration};

use async_endpoints::{
    Access, AsyncEndpoints, Endpoint, JobContext, JobId, JobName, JobType, Timestamp,
    axum::{body::Body, http::Request},
    core::{
        Store,
        job::{ErrorRecord, LogLine},
        store::{
            Claim, JobStore, Lease, LeaseToken, Outcome, Report, ReportedProgress, Settlement, TypeQuota, WorkerId,
        },
    },
};
use futures_util::StreamExt;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use support::{PATIENCE, Service};
use tokio::sync::Semaphore;
use tower_service::Service as _;

const GATED: JobType<(), u32> = JobType::new("Gated");
const WAITING: JobType<(), ()> = JobType::new("Waiting");

/// A service whose jobs report progress and end when the gate gets permits.
async fn gated() -> (Service, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let passes = gate.clone();
    let service = Service::start(|builder| {
        let builder = builder.endpoint(Endpoint::post("/gated", GATED)).endpoint(Endpoint::post("/waiting", WAITING));
        builder.handler(GATED, move |ctx: JobContext<()>| {
            let gate = passes.clone();
            async move {
                gate.acquire().await?.forget();
                ctx.progress().set(1, 2);
                gate.acquire().await?.forget();
                Ok(7)
            }
        })
    })
    .await;
    (service, gate)
}

#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    id: u64,
    data: Value,
}

/// An event stream as a client reads it.
struct Events {
    chunks: futures_util::stream::BoxStream<'static, Vec<u8>>,
    text: String,
}

impl Events {
    async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let chunks = futures_util::stream::unfold(response, |mut response| async {
            let chunk = response.chunk().await.ok()??;
            Some((chunk.to_vec(), response))
        });
        Self { chunks: chunks.boxed(), text: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                if let Some(data) = field("data") {
                    return Some(Event {
                        kind: field("event").unwrap_or("message").to_owned(),
                        id: field("id").unwrap().parse().unwrap(),
                        data: serde_json::from_str(data).unwrap(),
                    });
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.chunks.next()).await.expect("the stream sends or ends")?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn stream_sends_every_status_and_ends_with_job() {
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let mut events = Events::open(service.client.get(service.url(&format!("/jobs/{id}/events")))).await;
    let mut seen = vec![events.next().await.unwrap()];
    if seen[0].data["status"] == "Queued" {
        seen.push(events.next().await.unwrap());
    }
    assert_eq!(seen.last().unwrap().data["status"], "InProgress");
    gate.add_permits(1);
    let progress = events.next().await.unwrap();
    assert_eq!((&*progress.kind, &progress.data["progress"]["percent"]), ("progress", &json!(50.0)));
    gate.add_permits(1);
    let end = events.next().await.unwrap();
    assert_eq!((&*end.kind, &end.data["status"], &end.data["result"]), ("status", &json!("Completed"), &json!(7)));
    assert!(events.next().await.is_none(), "the stream ends after the terminal event");
    assert!(seen.iter().all(|event| event.kind == "status"));
    seen.extend([progress, end]);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(seen.iter().all(|event| event.data["version"] == event.id && event.data["id"] == json!(id)));
    assert_eq!(seen.last().unwrap().data, service.job(id).await, "an event has the whole job");
    service.stop().await;
}

#[tokio::test]
async fn stream_resumes_after_last_event_id() {
    let (service, gate) = gated().await;
    let id = service.submit("/gated", Value::Null).await;
    let url = service.url(&format!("/jobs/{id}/events"));
    let resume = |last: &str| service.client.get(&url).header("last-event-id", last.to_owned());
    let running = service.endpoints.clone();
    let started = async {
        while support::found(&running, id).await.attempt == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
    let now = support::found(&service.endpoints, id).await.version;
    // An old or malformed id gets the current state; a current id gets nothing yet.
    for old in ["0", "1", "no number", "-1"] {
        assert_eq!(Events::open(resume(old)).await.next().await.unwrap().id, now, "{old}");
    }
    let mut known = Events::open(resume(&now.to_string())).await;
    gate.add_permits(2);
    let mut last = known.next().await.unwrap();
    assert!(last.id > now);
    while let Some(event) = known.next().await {
        last = event;
    }
    assert_eq!(last.data["status"], "Completed");
    // A client with the terminal event gets 204; a client with a later id gets the terminal event.
    assert_eq!(resume(&last.id.to_string()).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for old in ["1", &(last.id + 100).to_string()] {
        let mut events = Events::open(resume(old)).await;
        assert_eq!(events.next().await.unwrap(), Event { kind: "status".to_owned(), ..clone(&last) });
        assert!(events.next().await.is_none());
    }
    service.stop().await;
}

fn clone(event: &Event) -> Event {
    Event { kind: event.kind.clone(), id: event.id, data: event.data.clone() }
}

#[tokio::test]
async fn streams_end_after_drain() {
    let (service, gate) = gated().await;
    let (gated, waiting) = (service.submit("/gated", Value::Null).await, service.submit("/waiting", Value::Null).await);
    let open = async |id: JobId| Events::open(service.client.get(service.url(&format!("/jobs/{id}/events")))).await;
    let (mut ends, mut stays) = (open(gated).await, open(waiting).await);
    while ends.next().await.unwrap().data["status"] != "InProgress" {}
    assert_eq!(stays.next().await.unwrap().data["status"], "Queued");
    service.endpoints.shutdown();
    gate.add_permits(2);
    let mut last = None;
    while let Some(event) = ends.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap().data["status"], "Completed", "the terminal event is sent during the drain");
    assert!(stays.next().await.is_none());
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn quiet_stream_sends_comments() {
    let store = support::store();
    let endpoints: AsyncEndpoints = support::builder(&store).build().unwrap();
    let id = endpoints.submit(WAITING, ()).await.unwrap().job.id;
    let request = Request::get(format!("/jobs/{id}/events")).body(Body::empty()).unwrap();
    let response = endpoints.job_routes::<()>().call(request).await.unwrap();
    let mut chunks = response.into_body().into_data_stream();
    let first = chunks.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"retry: 1000\n\nevent: status\nid: 1\ndata: {"), "{first:?}");
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        assert_eq!(&*chunks.next().await.unwrap().unwrap(), b":\n\n");
        assert_eq!(before.elapsed(), Duration::from_secs(15));
    }
}

#[tokio::test(start_paused = true)]
async fn log_stream_sends_comments_during_progress() {
    let store = support::store();
    let endpoints: AsyncEndpoints = support::builder(&store).access(Access::open()).build().unwrap();
    let id = endpoints.submit(WAITING, ()).await.unwrap().job.id;
    let lease = claim_by_hand(&*store).await;
    let request = Request::get(format!("/jobs/{id}/logs")).header("accept", "text/event-stream");
    let response = endpoints.job_routes::<()>().call(request.body(Body::empty()).unwrap()).await.unwrap();
    let mut chunks = response.into_body().into_data_stream();
    assert_eq!(&*chunks.next().await.unwrap().unwrap(), b"retry: 1000\n\n");
    let (before, mut done) = (tokio::time::Instant::now(), 0);
    let chunk = loop {
        tokio::select! {
            chunk = chunks.next() => break chunk.unwrap().unwrap(),
            () = tokio::time::sleep(Duration::from_millis(200)) => done += 1,
        }
        let progress = ReportedProgress { completed: done, total: None, percent: None, message: None };
        store.report(&[Report { lease, progress: Some(progress), logs: Vec::new() }]).await.unwrap();
    };
    assert_eq!(&*chunk, b":\n\n");
    assert_eq!(before.elapsed(), Duration::from_secs(15));
}

#[tokio::test]
async fn shutdown_ends_streams_without_serve() {
    let store = support::store();
    let endpoints: AsyncEndpoints = support::builder(&store).access(Access::open()).build().unwrap();
    let id = endpoints.submit(WAITING, ()).await.unwrap().job.id;
    for path in ["events", "logs"] {
        let endpoints = support::builder(&store).access(Access::open()).build().unwrap();
        let request = Request::get(format!("/jobs/{id}/{path}")).header("accept", "text/event-stream");
        let response = endpoints.job_routes::<()>().call(request.body(Body::empty()).unwrap()).await.unwrap();
        let mut chunks = response.into_body().into_data_stream();
        chunks.next().await.unwrap().unwrap();
        endpoints.shutdown();
        assert!(tokio::time::timeout(PATIENCE, chunks.next()).await.unwrap().is_none(), "{path}");
    }
}

#[tokio::test]
async fn log_is_sent_as_json_lines_text_or_stream() {
    let (service, _gate) = gated().await;
    let id = service.submit("/waiting", Value::Null).await;
    let store = service.endpoints.store();
    let lease = claim_by_hand(&**store).await;
    let log = async |messages: &[&str]| {
        let logs = messages.iter().map(|message| LogLine {
            line: 0,
            attempt: 0,
            timestamp: Timestamp::from_micros(1),
            level: "INFO".into(),
            target: None,
            message: (*message).to_owned(),
            fields: Default::default(),
        });
        store.report(&[Report { lease, progress: None, logs: logs.collect() }]).await.unwrap();
    };
    log(&["one", "two\nlines"]).await;
    let url = service.url(&format!("/jobs/{id}/logs"));
    let get = async |accept: &str| {
        let response = service.client.get(&url).header("accept", accept.to_owned()).send().await.unwrap();
        (response.headers()["content-type"].to_str().unwrap().to_owned(), response.text().await.unwrap())
    };
    let (kind, lines) = get("*/*").await;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["message"], &lines[1]["line"], &lines[1]["attempt"]),
        (&json!("two\nlines"), &json!(2), &json!(1))
    );
    let (kind, text) = get("text/plain").await;
    assert_eq!(kind, "text/plain; charset=utf-8");
    assert_eq!(text, "1970-01-01T00:00:00.000001Z INFO 1 one\n1970-01-01T00:00:00.000001Z INFO 1 two\\nlines\n");
    let refused = service.client.get(&url).header("accept", "text/html").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    // As a stream: from the client's last line until the job has ended.
    let stream = service.client.get(&url).header("accept", "text/event-stream").header("last-event-id", "1");
    let mut events = Events::open(stream).await;
    assert_eq!(events.next().await.unwrap().id, 2);
    log(&["three"]).await;
    assert_eq!(events.next().await.unwrap().data["message"], "three");
    log(&["four"]).await;
    end_by_hand(&**store, lease).await;
    assert_eq!(events.next().await.unwrap().data["message"], "four");
    assert!(events.next().await.is_none());
    let stream = |last: &str| {
        let request = service.client.get(&url).header("accept", "text/event-stream");
        request.header("last-event-id", last.to_owned())
    };
    assert_eq!(stream("4").send().await.unwrap().status(), StatusCode::NO_CONTENT, "the client has all lines");
    let mut again = Events::open(stream("2")).await;
    assert_eq!(again.next().await.unwrap().id, 3);
    assert_eq!(again.next().await.unwrap().id, 4);
    assert!(again.next().await.is_none());
    service.stop().await;
}

#[tokio::test]
async fn empty_log_stream_of_ended_job_is_204() {
    let (service, _gate) = gated().await;
    let id = service.submit("/waiting", Value::Null).await;
    let get = |accept: &str| {
        let request = service.client.get(service.url(&format!("/jobs/{id}/logs")));
        request.header("accept", accept.to_owned())
    };
    let mut events = Events::open(get("text/event-stream")).await;
    assert_eq!(service.cancel(id).await.0, StatusCode::OK);
    assert!(events.next().await.is_none());
    for request in [get("text/event-stream"), get("text/event-stream").header("last-event-id", "7")] {
        let response = tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "browsers reconnect after 200");
    }
    assert_eq!(get("text/plain").send().await.unwrap().status(), StatusCode::OK);
    service.stop().await;
}

/// Claims a job like a worker, so that the test decides what the attempt reports.
async fn claim_by_hand(store: &dyn Store) -> Lease {
    let minute = Duration::from_secs(60);
    let quotas = vec![TypeQuota { name: JobName::new("Waiting").unwrap(), max: 1, timeout: minute }];
    let (worker, token) = (WorkerId(uuid::Uuid::new_v4()), LeaseToken(uuid::Uuid::new_v4()));
    let claim = Claim { worker, token, quotas, max: 1, max_bytes: 1 << 20, lease: minute };
    store.claim(&claim).await.unwrap().attempts[0].lease
}

async fn end_by_hand(store: &dyn Store, lease: Lease) {
    let error = ErrorRecord {
        code: "X".into(),
        title: "X".into(),
        status: 410,
        detail: None,
        retryable: false,
        sources: Vec::new(),
    };
    let outcome = Outcome::Completed { result: "null".into() };
    store.settle(&[Settlement::new(lease, outcome, error)]).await.unwrap();
}
