//! The server, tested from raw sockets: slow clients, hang-ups, limits, shutdown.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints::{Access, Endpoint, JobContext, JobId, JobType, Options};
use serde_json::Value;
use support::{PATIENCE, Service, quick};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

const WAITING: JobType<(), ()> = JobType::new("Waiting");
const HELD: JobType<(), ()> = JobType::new("Held");

async fn service(options: Options) -> Service {
    Service::start(|builder| builder.options(options).endpoint(Endpoint::post("/waiting", WAITING))).await
}

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until the response contains `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 4096];
        let n = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("the server sends more").unwrap();
        assert_ne!(n, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    text
}

#[tokio::test]
async fn request_that_cannot_be_parsed_gets_an_empty_answer() {
    let service = service(quick()).await;
    for (request, status) in [("GET\r\n\r\n".to_owned(), 400), (get(&format!("/jobs?q={}", "x".repeat(65_536))), 414)] {
        let mut stream = connect(&service).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && body.is_empty(), "{answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn incomplete_head_closes_the_connection() {
    let service = service(Options { header_read: Duration::from_millis(300), ..quick() }).await;
    let id = service.submit("/waiting", Value::Null).await;
    let mut slow = Vec::new();
    for start in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = connect(&service).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // Meanwhile other clients are served, also with several requests per connection.
    let mut polite = connect(&service).await;
    for _ in 0..3 {
        polite.write_all(get(&format!("/jobs/{id}")).as_bytes()).await.unwrap();
        until(&mut polite, "\"links\"").await;
    }
    slow.push(polite);
    for mut stream in slow {
        rest(&mut stream).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn client_hang_up_ends_wait_and_stream() {
    let service = service(quick()).await;
    let id = service.submit("/waiting", Value::Null).await;
    for path in ["?wait=60", "/events"] {
        let mut stream = connect(&service).await;
        stream.write_all(get(&format!("/jobs/{id}{path}")).as_bytes()).await.unwrap();
        if path == "/events" {
            until(&mut stream, "\"links\"").await;
        }
        stream.shutdown().await.unwrap();
        let began = Instant::now();
        rest(&mut stream).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let service = service(quick()).await;
    let id = service.submit("/waiting", Value::Null).await;
    let mut stream = connect(&service).await;
    // A request behind it does not end the wait.
    let ahead = format!("{}{}", get(&format!("/jobs/{id}?wait=1")), get("/jobs/7"));
    let began = Instant::now();
    stream.write_all(ahead.as_bytes()).await.unwrap();
    let answers = until(&mut stream, "JOB_NOT_FOUND").await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(answers.find("HTTP/1.1 200").unwrap() < answers.find("HTTP/1.1 404").unwrap());
    service.stop().await;
}

#[tokio::test]
async fn connection_beyond_limit_waits_for_another_to_close() {
    let service = service(Options { max_connections: 2, ..quick() }).await;
    let id = JobId::random();
    let (first, mut second, mut third) = (connect(&service).await, connect(&service).await, connect(&service).await);
    let ask = get(&format!("/jobs/{id}"));
    second.write_all(ask.as_bytes()).await.unwrap();
    until(&mut second, "JOB_NOT_FOUND").await;
    third.write_all(ask.as_bytes()).await.unwrap();
    assert!(timeout(Duration::from_millis(200), third.read_u8()).await.is_err(), "the limit is reached");
    drop(first);
    until(&mut third, "JOB_NOT_FOUND").await;
    drop((second, third));
    service.stop().await;
}

#[tokio::test]
async fn oversized_request_is_refused_early() {
    let service = service(quick()).await;
    let head = "POST /waiting HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for (rest_of_head, code) in [
        ("content-length: 2000000\r\nexpect: 100-continue\r\n\r\n", "413"),
        ("content-length: 1000000000000\r\n\r\n", "413"),
    ] {
        let mut stream = connect(&service).await;
        stream.write_all(format!("{head}{rest_of_head}").as_bytes()).await.unwrap();
        let answer = until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn request_needs_one_valid_host() {
    let service = service(quick()).await;
    for (version, hosts, status) in [
        ("1.1", "", "400"),
        ("1.1", "host: a\r\nhost: a\r\n", "400"),
        ("1.1", "host: a\r\nHost: b\r\n", "400"),
        ("1.0", "host: a\r\nhost: b\r\n", "400"),
        ("1.1", "host: a, b\r\n", "400"),
        ("1.1", "host: user@a\r\n", "400"),
        ("1.1", "host: http://a/\r\n", "400"),
        ("1.0", "", "404"),
        ("1.1", "host: \r\n", "404"),
        ("1.1", "host: a_b.example:80\r\n", "404"),
        ("1.1", "host: [::1]:80\r\n", "404"),
    ] {
        let mut stream = connect(&service).await;
        stream.write_all(format!("GET /jobs/7 HTTP/{version}\r\n{hosts}\r\n").as_bytes()).await.unwrap();
        let answer = until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/{version} {status}")), "{hosts:?}: {answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn bodiless_status_has_no_content_length() {
    const DONE: JobType<(), u32> = JobType::new("Done");
    let service = support::dashboard::start(Access::loopback(), |builder| {
        builder.endpoint(Endpoint::post("/done", DONE)).handler(DONE, async |_: JobContext<()>| Ok(7))
    })
    .await;
    let id = service.submit("/done", Value::Null).await;
    let version = format!("\"{}\"", service.ended(id).await["version"]);
    let page = support::dashboard::get(&service, "/dashboard/jobs").await;
    let page = page.headers()["etag"].to_str().unwrap();
    let job = format!("/jobs/{id}");
    let mut stream = connect(&service).await;
    // One connection, which each response leaves usable.
    for method in ["GET", "HEAD"] {
        for (path, header, etag) in [
            (job.clone(), format!("if-none-match: {version}"), Some(&*version)),
            (format!("{job}/result"), format!("if-none-match: {version}"), Some(&version)),
            ("/dashboard/jobs".to_owned(), format!("if-none-match: {page}"), Some(page)),
            (format!("{job}/events"), format!("last-event-id: {}", version.trim_matches('"')), None),
            (format!("{job}/logs"), "accept: text/event-stream\r\nlast-event-id: 9".to_owned(), None),
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = until(&mut stream, "\r\n\r\n").await;
            let status = if etag.is_some() { "304" } else { "204" };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}: {answer}");
            assert!(!answer.contains("content-length") && !answer.contains("transfer-encoding"), "{method} {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
            assert_eq!(answer.lines().find_map(|line| line.strip_prefix("etag: ")), etag, "{answer}");
        }
        // A response with a body has its length, also to HEAD.
        let request = format!("{method} {job}/result HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = until(&mut stream, if method == "GET" { "\r\n\r\n7" } else { "\r\n\r\n" }).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 1\r\n"), "{answer}");
        assert_eq!(answer.ends_with('7'), method == "GET", "{answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_request_in_flight() {
    let (began, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, passes) = (began.clone(), gate.clone());
    let store = support::store();
    let endpoints = support::builder(&store).build().unwrap();
    let slow = async move || {
        begins.add_permits(1);
        passes.acquire().await.unwrap().forget();
        "done"
    };
    let app = support::routes(&endpoints).route("/slow", async_endpoints::axum::routing::get(slow));
    let service = Service::serve_app(store, endpoints, app).await;
    let mut stream = connect(&service).await;
    stream.write_all(get("/slow").as_bytes()).await.unwrap();
    timeout(PATIENCE, began.acquire()).await.unwrap().unwrap().forget();
    service.endpoints.shutdown();
    // Longer than the rest of the shutdown takes.
    assert!(timeout(Duration::from_millis(1500), stream.read_u8()).await.is_err(), "the request still runs");
    gate.add_permits(1);
    assert!(rest(&mut stream).await.ends_with("done"));
    service.stop().await;
}

#[tokio::test]
async fn shutdown_closes_idle_connections_after_drain() {
    let gate = Arc::new(Semaphore::new(0));
    let passes = gate.clone();
    let service = Service::start(|builder| {
        builder.endpoint(Endpoint::post("/held", HELD)).handler(HELD, move |_: JobContext<()>| {
            let gate = passes.clone();
            async move {
                gate.acquire().await?.forget();
                Ok(())
            }
        })
    })
    .await;
    let id = service.submit("/held", Value::Null).await;
    let (mut idle, mut reader) = (connect(&service).await, connect(&service).await);
    let ask = get(&format!("/jobs/{id}"));
    let started = async {
        loop {
            idle.write_all(ask.as_bytes()).await.unwrap();
            if until(&mut idle, "\"links\"").await.contains("InProgress") {
                break;
            }
        }
    };
    timeout(PATIENCE, started).await.unwrap();
    service.endpoints.shutdown();
    reader.write_all(ask.as_bytes()).await.unwrap();
    assert!(until(&mut reader, "\"links\"").await.contains("InProgress"), "reads work during the drain");
    gate.add_permits(1);
    rest(&mut idle).await;
    rest(&mut reader).await;
    service.stop().await;
}
