//! What the build says about declarations that cannot work.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_endpoints::{AsyncEndpoints, BuildError, Builder, Endpoint, JobContext, JobType, Options};
use serde_json::Value;
use support::{quick, store};

#[derive(serde::Deserialize)]
struct Order {}

const ORDER: JobType<Order, u32> = JobType::new("Order");
const OTHER: JobType<(), ()> = JobType::new("Other");

#[test]
fn build_rejects_conflicting_declarations() {
    let build = |build: fn(async_endpoints::Builder) -> async_endpoints::Builder| {
        build(support::builder(&store())).build().map(drop).unwrap_err().to_string()
    };
    let same = build(|b| b.endpoint(Endpoint::post("/a", ORDER)).endpoint(Endpoint::post("/a", OTHER)));
    assert!(same.contains("Other") && same.contains("Order, POST /a"), "{same}");
    let overlap = build(|b| b.endpoint(Endpoint::post("/a/{x}", ORDER)).endpoint(Endpoint::put("/a/{y}", OTHER)));
    assert!(overlap.contains("Other") && overlap.contains("Order, POST /a/{x}"), "{overlap}");
    let slash = build(|b| b.endpoint(Endpoint::post("a", ORDER)));
    assert!(slash.contains("begins with a slash"), "{slash}");
    let old = build(|b| b.endpoint(Endpoint::post("/a/:id", ORDER)));
    assert!(old.contains("{name}"), "{old}");
    let brace = build(|b| b.endpoint(Endpoint::post("/a/{", ORDER)));
    assert!(brace.contains("/a/{"), "{brace}");
    let own = build(|b| b.endpoint(Endpoint::post("/jobs/{kind}", ORDER)));
    let reserved = "cannot route POST /jobs/{kind} of Order: job_routes() reserves the path for GET /jobs/{id}, choose another one";
    assert_eq!(own, reserved);
    let metrics = build(|b| b.endpoint(Endpoint::put("/metrics", ORDER)));
    assert!(
        metrics.ends_with("monitoring_routes() reserves the path for GET /metrics, choose another one"),
        "{metrics}"
    );
    let rest = build(|b| b.endpoint(Endpoint::post("/ops/{kind}", ORDER)));
    assert!(rest.ends_with("reserves all paths of the form /ops/{*rest}, choose another one"), "{rest}");
    support::builder(&store()).endpoint(Endpoint::post("/ops/import", ORDER)).build().expect("a fixed path is free");
    let twice = build(|b| {
        b.handler(ORDER, async |_: JobContext<Order>| Ok(1)).handler(ORDER, async |_: JobContext<Order>| Ok(2))
    });
    assert_eq!(twice, "Order has two handlers");
    const CLASH: JobType<Order, u32> = JobType::new("Order").max_retries(9);
    let clash = build(|b| b.endpoint(Endpoint::post("/a", CLASH)).handler(ORDER, async |_: JobContext<Order>| Ok(1)));
    let rules = "Order is declared twice, with different rules: max_retries is 9 and the default. \
                 Declare the job type as one constant and use it in both places";
    assert_eq!(clash, rules);
    let clash = build(|b| b.endpoint(Endpoint::post("/a", ORDER)).handled_elsewhere(CLASH));
    assert!(clash.contains("max_retries is the default and 9"), "{clash}");
    const NAMELESS: JobType<Order, u32> = JobType::new("no name");
    let name = build(|b| b.endpoint(Endpoint::post("/a", NAMELESS)));
    assert!(name.contains("\"no name\""), "{name}");
    let zero = support::builder(&store()).options(Options { concurrency: 0, ..quick() }).build().unwrap_err();
    assert!(matches!(zero, BuildError::Options(_)), "{zero}");
    const IDLE: JobType<Order, u32> = ORDER.concurrency(0);
    const INSTANT: JobType<Order, u32> = ORDER.timeout(Duration::from_nanos(999_999));
    const FORGOTTEN: JobType<Order, u32> = ORDER.retention(Duration::ZERO);
    for (rule, value, error) in [
        ("concurrency", "0", build(|b| b.endpoint(Endpoint::post("/a", IDLE)))),
        ("timeout", "999.999µs", build(|b| b.endpoint(Endpoint::post("/a", INSTANT)))),
        ("retention", "0ns", build(|b| b.handler(FORGOTTEN, async |_: JobContext<Order>| Ok(1)))),
    ] {
        assert!(error.starts_with(&format!("invalid {rule} \"{value}\" of Order: expected a ")), "{error}");
    }
}

/// The text that a subscriber wrote.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that the build logs.
fn lines_of_build(build: impl FnOnce(Builder) -> Builder) -> Vec<Value> {
    let output = Output::default();
    let writer = output.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let endpoints: AsyncEndpoints =
        tracing::subscriber::with_default(subscriber, || build(support::builder(&store())).build().unwrap());
    drop(endpoints);
    let text = output.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn endpoint_without_handler_is_logged_once_per_type() {
    let lines = lines_of_build(|builder| {
        builder
            .endpoint(Endpoint::post("/orders", ORDER))
            .endpoint(Endpoint::put("/orders", ORDER))
            .endpoint(Endpoint::post("/others", OTHER))
            .handler(OTHER, async |_: JobContext<()>| Ok(()))
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    let fields = ["level", "job_name", "method", "path"].map(|field| line[field].as_str().unwrap());
    assert_eq!(fields, ["WARN", "Order", "POST", "/orders"]);
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("`.handler(…)`") && message.contains("`.handled_elsewhere(…)`"), "{message}");
}

#[test]
fn declared_type_is_not_logged() {
    let lines = lines_of_build(|builder| builder.endpoint(Endpoint::post("/orders", ORDER)).handled_elsewhere(ORDER));
    assert_eq!(lines, [] as [Value; 0]);
}
