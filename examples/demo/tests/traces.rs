//! Spans at independent OTLP receivers: names, kinds, links, attributes and status, over all stores and over failures.

mod support;

use std::collections::BTreeSet;

use async_endpoints_testkit::server::RedisServer;
use serde_json::{Value, json};
use support::{
    Demo, Folder,
    otlp::{CLIENT, CONSUMER, ERROR, INTERNAL, Link, PRODUCER, SERVER, Tap, UNSET, named},
    traced::{CALLER, TRACE, attempts, exporting, sent, submit_traced},
    until,
};

/// A job whose first attempt fails and whose retry fails too, on this store.
async fn check_spans_of_a_failed_job(store: &str) {
    let (folder, vars) = (Folder::new(), [("AE_STORE", store), ("AE_MAX_RETRIES", "1")]);
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    let job = submit_traced(&demo, "/api/unreliable", &json!({ "failureRate": 1 })).await;
    let ended = demo.ended(&job).await;
    assert_eq!((&ended["status"], &ended["traceId"]), (&json!("Failed"), &json!(TRACE)), "{ended}");
    assert_eq!(demo.get("/jobs/none").await.status(), 404);
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("all spans", |spans| attempts(spans, &job).len() == 2).await;

    let request = named(&spans, "POST /api/unreliable");
    assert_eq!((request.kind, &*request.trace_id, &*request.parent_span_id), (SERVER, TRACE, "b7ad6b7169203331"));
    assert_eq!((&*request.trace_state, request.status.code), ("vendor=x", UNSET));
    for (key, value) in [("http.request.method", "POST"), ("http.route", "/api/unreliable"), ("url.scheme", "http")] {
        assert_eq!(request.text(key), value, "{request:#?}");
    }
    assert_eq!(request.attributes["http.response.status_code"], 202);

    let send = sent(&spans, &job);
    assert!(send.name == "send Unreliable" && send.is_child_of(request) && send.status.code == UNSET, "{send:#?}");
    let attempts = attempts(&spans, &job);
    for (number, attempt) in (1..).zip(&attempts) {
        assert_eq!((&*attempt.name, attempt.kind, &*attempt.parent_span_id), ("process Unreliable", CONSUMER, ""));
        assert_eq!((attempt.status.code, attempt.text("error.type")), (ERROR, "UNRELIABLE"), "{attempt:#?}");
        assert!(attempt.trace_id != TRACE && attempt.links_to(send), "{attempt:#?}");
        assert_eq!(attempt.attributes["async_job.attempt"], number);
    }
    assert!(attempts[1].links_to(&attempts[0]) && attempts[0].links.len() == 1, "{attempts:#?}");
    for (span, operation) in [(send, "send"), (&attempts[0], "process"), (&attempts[1], "process")] {
        for (key, value) in [
            ("messaging.system", "asyncendpoints"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", operation),
            ("messaging.destination.name", "Unreliable"),
        ] {
            assert_eq!(span.text(key), value, "{key} of {span:#?}");
        }
    }
    let calls = spans.iter().filter(|span| span.kind == CLIENT && !span.text("db.system.name").is_empty());
    assert!(calls.clone().any(|call| call.is_child_of(send)), "the insert: {spans:#?}");
    // An empty claim has no span. Others link to the attempts that they start.
    let mut claims = spans.iter().filter(|span| span.name == "claim");
    assert!(claims.clone().count() >= 2 && claims.all(|claim| !claim.links.is_empty()), "{spans:#?}");
    let missing = spans.iter().find(|span| span.attributes.get("http.response.status_code") == Some(&json!(404)));
    let missing = missing.expect("the span of a missing job");
    assert_eq!((&*missing.name, missing.status.code), ("GET /jobs/{id}", UNSET), "{missing:#?}");
}

#[tokio::test]
async fn spans_of_failed_job_are_linked_in_memory() {
    check_spans_of_a_failed_job("memory:").await;
}

#[tokio::test]
async fn spans_of_failed_job_are_linked_on_sqlite() {
    check_spans_of_a_failed_job("sqlite:jobs.db").await;
}

#[tokio::test]
async fn spans_of_failed_job_are_linked_on_redis() {
    let redis = RedisServer::start();
    check_spans_of_a_failed_job(&redis.url()).await;
}

/// Kills the process during the first attempt. The second one runs in another process.
async fn check_link_over_a_kill(store: &str) {
    let (folder, vars) = (Folder::new(), [("AE_STORE", store), ("AE_LEDGER", "ledger"), ("AE_LEASE_SECONDS", "1")]);
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    let job = submit_traced(&demo, "/api/sleep", &json!({ "seconds": 1 })).await;
    until("a start", || !folder.ledger().is_empty()).await;
    tap.spans_when("the submission", |spans| spans.iter().any(|span| span.kind == PRODUCER)).await;
    demo.kill().await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    assert_eq!(demo.ended(&job).await["status"], "Completed");
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("an attempt", |spans| !attempts(spans, &job).is_empty()).await;
    let [attempt] = &*attempts(&spans, &job) else { panic!("one attempt ended: {spans:#?}") };
    assert!(attempt.links_to(sent(&spans, &job)) && attempt.attributes["async_job.attempt"] == 2, "{attempt:#?}");
    assert_eq!(attempt.links[0].trace_id, TRACE);
}

#[tokio::test]
async fn link_to_submission_survives_a_kill_on_sqlite() {
    check_link_over_a_kill("sqlite:jobs.db").await;
}

#[tokio::test]
async fn link_to_submission_survives_a_kill_on_redis() {
    let redis = RedisServer::start();
    check_link_over_a_kill(&redis.url()).await;
}

#[tokio::test]
async fn next_attempt_links_to_a_released_one() {
    let (folder, vars) = (Folder::new(), [("AE_LEDGER", "ledger"), ("AE_SHUTDOWN_SECONDS", "0.1")]);
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    let job = submit_traced(&demo, "/api/sleep", &json!({ "seconds": 1 })).await;
    until("a start", || !folder.ledger().is_empty()).await;
    demo.stop().await.expect("a clean exit");
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    assert_eq!(demo.ended(&job).await["status"], "Completed");
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("both attempts", |spans| attempts(spans, &job).len() == 2).await;
    let attempts = attempts(&spans, &job);
    let outcomes: Vec<&str> = attempts.iter().map(|attempt| attempt.text("async_job.outcome")).collect();
    assert_eq!(outcomes, ["released", "completed"]);
    assert!(attempts[1].links_to(&attempts[0]) && attempts[1].links_to(sent(&spans, &job)), "{attempts:#?}");
    // A release is no failure.
    assert!(attempts.iter().all(|attempt| attempt.status.code == UNSET), "{attempts:#?}");
}

#[tokio::test]
async fn propagation_decides_on_link_and_parent() {
    for (propagation, is_child, is_linked) in [("link", false, true), ("child", true, false), ("none", false, false)] {
        let (folder, vars) = (Folder::new(), [("AE_STORE", "memory:"), ("AE_PROPAGATION", propagation)]);
        let tap = Tap::start(&folder).await;
        let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
        let job = submit_traced(&demo, "/api/sleep", &json!({ "seconds": 0 })).await;
        demo.ended(&job).await;
        demo.stop().await.expect("a clean exit");
        let spans = tap.spans_when("an attempt", |spans| !attempts(spans, &job).is_empty()).await;
        let (attempt, send) = (&attempts(&spans, &job)[0], sent(&spans, &job));
        assert_eq!((attempt.is_child_of(send), attempt.links_to(send)), (is_child, is_linked), "{propagation}");
    }
}

#[tokio::test]
async fn unsampled_caller_exports_neither_half() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &[("AE_STORE", "memory:")])).await;
    let unsampled = demo.posting("/api/sleep", &json!({ "seconds": 0 }));
    let unsampled = unsampled.header("traceparent", CALLER.replace("-01", "-00")).send().await.expect("an answer");
    let unsampled: Value = unsampled.json().await.expect("a job");
    demo.ended(&format!("/jobs/{}", unsampled["id"].as_str().expect("an id"))).await;
    let sampled = submit_traced(&demo, "/api/sleep", &json!({ "seconds": 0 })).await;
    demo.ended(&sampled).await;
    let (unsampled, log) = (unsampled["id"].as_str().expect("an id"), demo.log_path());
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("the sampled attempt", |spans| !attempts(spans, &sampled).is_empty()).await;
    assert!(spans.iter().all(|span| span.text("messaging.message.id") != unsampled), "{spans:#?}");
    // No span of a claim or a settlement links to a span that is not exported.
    let exported = |link: &Link| spans.iter().any(|span| span.span_id == link.span_id);
    assert!(spans.iter().flat_map(|span| &span.links).all(exported), "{spans:#?}");
    // Its log lines have ids all the same.
    let lines = support::lines(&log);
    let ended = lines.iter().find(|line| line["event"] == "job.completed" && line["job_id"] == unsampled);
    assert!(ended.is_some_and(|line| line["trace_id"].as_str().is_some_and(|id| id.len() == 32)), "{lines:#?}");
}

#[tokio::test]
async fn sampling_keeps_both_halves_of_a_job() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let vars = [
        ("AE_STORE", "memory:"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &vars)).await;
    for _ in 0..60 {
        demo.finish("/api/sleep", &json!({ "seconds": 0 })).await;
    }
    demo.stop().await.expect("a clean exit");
    let ids = |kind| {
        let spans = tap.spans();
        let ids =
            spans.iter().filter(|span| span.kind == kind).map(|span| span.text("messaging.message.id").to_owned());
        ids.collect::<BTreeSet<String>>()
    };
    until("equal halves", || !ids(PRODUCER).is_empty() && ids(PRODUCER) == ids(CONSUMER)).await;
    assert!((10..50).contains(&ids(PRODUCER).len()), "{} of 60", ids(PRODUCER).len());
}

#[tokio::test]
async fn handler_spans_reach_the_second_service() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &[("AE_STORE", "memory:")])).await;
    let job = submit_traced(&demo, "/api/traced", &json!({ "requestId": "r-1", "category": "fog" })).await;
    assert_eq!(demo.ended(&job).await["status"], "Completed");
    let log = demo.log_path();
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("an attempt", |spans| !attempts(spans, &job).is_empty()).await;
    let attempt = &attempts(&spans, &job)[0];
    let [query, format] = ["SELECT observation", "format months"].map(|name| named(&spans, name));
    let of_call = |kind| spans.iter().find(|span| span.name == "POST /monthly" && span.kind == kind);
    let [call, served] = [CLIENT, SERVER].map(|kind| of_call(kind).unwrap_or_else(|| panic!("{spans:#?}")));
    assert_eq!((query.kind, call.kind, format.kind), (CLIENT, CLIENT, INTERNAL));
    assert!([query, call, format].iter().all(|span| span.is_child_of(attempt)), "{spans:#?}");
    assert!(served.is_child_of(call), "{spans:#?}");
    assert_eq!((query.text("db.system.name"), query.text("db.operation.name")), ("sqlite", "SELECT"));
    for span in [call, served] {
        assert_eq!(span.attributes["http.response.status_code"], 200, "{span:#?}");
    }
    // The second service's own line has the same trace.
    let lines = support::lines(&log);
    let line = lines.iter().find(|line| line["message"] == "computing monthly statistics").expect("a line");
    assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(attempt.trace_id), &json!(served.span_id)), "{line}");
}
