//! Metrics pushed by OTLP, to receivers that others wrote; and to none.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    Demo, Folder,
    peer::{Peer, free_port, python},
};

#[tokio::test]
async fn metrics_arrive_over_http() {
    let (folder, port) = (Folder::new(), free_port().to_string());
    // Series of jobs are there at zero. This one comes with the first job.
    let args = ["--port", &port, "--await-metric", "performance.processed_items"];
    let mut receiver = Peer::start(&folder, &python("oteltap"), "oteltap", &args);
    let endpoint = format!("http://127.0.0.1:{port}");
    let vars = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_METRIC_EXPORT_INTERVAL", "100")];
    let demo = Demo::start(&folder, &vars).await;
    demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 10 })).await;
    assert!(receiver.ended().await, "{}", receiver.said());
    demo.stop().await.expect("it stops");
}

#[tokio::test]
async fn metrics_arrive_over_grpc_and_the_last_of_them_at_the_end() {
    let (folder, port) = (Folder::new(), free_port());
    let (grpc, http) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port()));
    let listen = ["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http];
    let print = ["--exporter", "blackhole", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"];
    let receiver = Peer::start(&folder, &python("rotel-agent"), "rotel", &[&listen[..], &print[..]].concat());
    receiver.says("Starting Rotel").await;
    let endpoint = format!("http://{grpc}");
    let vars = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        // Nothing is pushed before the end.
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ("OTEL_SERVICE_NAME", "told-at-the-end"),
    ];
    let demo = Demo::start(&folder, &vars).await;
    demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 4321 })).await;
    assert!(!receiver.said().contains("async_job"), "{}", receiver.said());
    demo.stop().await.expect("it stops");
    for told in
        ["service.name: Str(told-at-the-end)", "async_job.total_time", "performance.processed_items", "Value: 4321"]
    {
        receiver.says(told).await;
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_or_hangs_costs_nobody_anything() {
    // Takes connections and never answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let hanging = format!("http://{}", hanging.local_addr().expect("an address"));
    let gone = format!("http://127.0.0.1:{}", free_port());
    for (endpoint, protocol) in
        [(&hanging, "http/protobuf"), (&hanging, "grpc"), (&gone, "http/protobuf"), (&gone, "grpc")]
    {
        let folder = Folder::new();
        let vars = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &**endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
            ("AE_SHUTDOWN_SECONDS", "1"),
        ];
        let demo = Demo::start(&folder, &vars).await;
        let job = demo.finish("/api/sleep", &json!({ "seconds": 0 })).await;
        assert_eq!(job["status"], "Completed");
        let began = Instant::now();
        demo.stop().await.expect("it stops");
        assert!(began.elapsed() < Duration::from_secs(4), "{endpoint} {protocol}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_wrong_setting_ends_it_with_the_variables_name() {
    let folder = Folder::new();
    let vars =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")];
    let ended = folder.run(&vars).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"carrier-pigeon\""), "{said}");
}
