//! What independent OTLP receivers get besides spans: log records, attribute keys, the resource of each signal.

mod support;

use serde_json::json;
use support::{
    Demo, Folder,
    otlp::{Rotel, Tap},
    traced::{attempts, exporting, id, submit_traced},
    until,
};

#[tokio::test]
async fn log_records_carry_the_attempt() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &[("AE_STORE", "memory:")])).await;
    let job = submit_traced(&demo, "/api/sleep", &json!({ "seconds": 0 })).await;
    demo.ended(&job).await;
    tap.receives_metric("async_job.queued").await;
    demo.stop().await.expect("a clean exit");
    let spans = tap.spans_when("an attempt", |spans| !attempts(spans, &job).is_empty()).await;
    let attempt = &attempts(&spans, &job)[0];
    let of_attempt = || tap.records().into_iter().filter(|record| record.span_id == attempt.span_id);
    until("records", || of_attempt().count() >= 4).await;
    let records: Vec<_> = of_attempt().collect();
    for body in ["sleep started", "sleep ended"] {
        let record = records.iter().find(|record| record.body == *body).unwrap_or_else(|| panic!("{records:#?}"));
        assert_eq!((&record.trace_id, &*record.severity_text), (&attempt.trace_id, "INFO"), "{record:#?}");
        assert_eq!((&record.attributes["job_id"], &record.attributes["attempt"]), (&json!(id(&job)), &json!(1)));
    }
    for event in ["job.started", "job.completed"] {
        assert!(records.iter().any(|record| record.attributes.get("event") == Some(&json!(event))), "{records:#?}");
    }
}

/// Keys that semantic conventions have replaced.
const DEPRECATED: [&str; 24] = [
    "http.method",
    "http.status_code",
    "http.url",
    "http.target",
    "http.host",
    "http.scheme",
    "http.flavor",
    "http.user_agent",
    "http.client_ip",
    "net.peer.name",
    "net.peer.port",
    "net.host.name",
    "net.host.port",
    "net.sock.peer.addr",
    "messaging.operation",
    "messaging.destination",
    "messaging.message_id",
    "messaging.client_id",
    "messaging.conversation_id",
    "db.system",
    "db.statement",
    "db.operation",
    "db.name",
    "deployment.environment",
];

#[tokio::test]
async fn exported_keys_are_current() {
    let folder = Folder::new();
    let tap = Tap::start(&folder).await;
    let demo = Demo::start(&folder, &exporting(tap.endpoint(), &[("AE_MAX_RETRIES", "0")])).await;
    let job = submit_traced(&demo, "/api/traced", &json!({ "requestId": "r-1", "category": "fog" })).await;
    demo.ended(&job).await;
    demo.finish("/api/unreliable", &json!({ "failureRate": 1 })).await;
    demo.stop().await.expect("a clean exit");
    tap.spans_when("an attempt", |spans| !attempts(spans, &job).is_empty()).await;
    let output = tap.output();
    assert!(output.contains("\"key\":\"messaging.system\"") && output.contains("\"key\":\"http.request.method\""));
    let found: Vec<_> = DEPRECATED.iter().filter(|key| output.contains(&format!("\"key\":\"{key}\""))).collect();
    assert!(found.is_empty(), "{found:?}");
    // Exceptions are log records, not events of spans.
    assert!(tap.spans().iter().all(|span| span.events.is_empty()), "{:#?}", tap.spans());
}

/// Each signal's resource and scope, over this protocol.
async fn check_resource(protocol: &str, address: fn(&Rotel) -> &str) {
    let folder = Folder::new();
    let rotel = Rotel::start(&folder, &["traces", "logs", "metrics"]).await;
    let endpoint = format!("http://{}", address(&rotel));
    let vars = [
        ("AE_STORE", "memory:"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_SERVICE_NAME", "reports"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.instance.id=node-7"),
    ];
    let demo = Demo::start(&folder, &exporting(&endpoint, &vars)).await;
    demo.finish("/api/unreliable", &json!({ "failureRate": 0 })).await;
    demo.stop().await.expect("a clean exit");
    until("a span", || rotel.peer.output().contains("Name           : process Unreliable")).await;
    let output = rotel.peer.output();
    for signal in ["ResourceSpans #0", "ResourceLog #0", "ResourceMetrics #0"] {
        let (_, resource) = output.split_once(signal).unwrap_or_else(|| panic!("no {signal} in {output}"));
        let (resource, _) = resource.split_once("\nScope").expect("a scope");
        for attribute in [
            "service.name: Str(reports)",
            "deployment.environment.name: Str(staging)",
            "service.instance.id: Str(node-7)",
            concat!("service.version: Str(", env!("CARGO_PKG_VERSION"), ")"),
        ] {
            assert!(resource.contains(attribute), "{attribute} of {signal}: {resource}");
        }
    }
    for part in ["SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER", "SPAN_KIND_SERVER", "SpanLink #0"] {
        assert!(output.contains(part), "{part}");
    }
}

#[tokio::test]
async fn resource_describes_the_process_over_grpc() {
    check_resource("grpc", |rotel| &rotel.grpc).await;
}

#[tokio::test]
async fn resource_describes_the_process_over_http() {
    check_resource("http/protobuf", |rotel| &rotel.http).await;
}
