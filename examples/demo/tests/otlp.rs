//! Metrics pushed by OTLP, to receivers that others wrote; and to none.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_endpoints_testkit::server::certify;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use support::{
    Demo, Folder,
    peer::{Peer, free_port, python},
    until,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

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

/// Speaks TLS on a port of its own, with the certificate in a folder, and passes on what is inside. Says where.
async fn behind_tls(folder: &Folder, to: String) -> String {
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a file");
    let cert = CertificateDer::from_pem_slice(&read("server.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = config.with_no_client_auth().with_single_cert(vec![cert], key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (tls, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, to) = (tls.clone(), to.clone());
            tokio::spawn(async move {
                let (mut outside, mut inside) = (tls.accept(stream).await?, TcpStream::connect(to).await?);
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    url
}

#[tokio::test]
async fn metrics_arrive_over_tls_at_those_who_are_trusted() {
    let (folder, port, grpc) = (Folder::new(), free_port().to_string(), format!("127.0.0.1:{}", free_port()));
    certify(&folder.join(""));
    let args = ["--port", &port, "--await-metric", "performance.processed_items"];
    let mut over_http = Peer::start(&folder, &python("oteltap"), "oteltap", &args);
    let http = behind_tls(&folder, format!("127.0.0.1:{port}")).await;
    let listen =
        ["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &format!("127.0.0.1:{}", free_port())];
    let print = ["--exporter", "blackhole", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"];
    let over_grpc = Peer::start(&folder, &python("rotel-agent"), "rotel", &[&listen[..], &print[..]].concat());
    over_grpc.says("Starting Rotel").await;
    let grpc_url = behind_tls(&folder, grpc).await;
    let ca = folder.join("ca.crt").display().to_string();
    // The same endpoints, to whom trusts another authority.
    let other = Folder::new();
    certify(&other.join(""));
    let others = other.join("ca.crt").display().to_string();
    for (endpoint, protocol) in [(&http, "http/protobuf"), (&grpc_url, "grpc")] {
        let vars = |trusted| {
            [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &**endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
                ("SSL_CERT_FILE", trusted),
            ]
        };
        let demo = Demo::start(&folder, &vars(&others)).await;
        until("why nothing is pushed", || demo.log().contains("invalid peer certificate")).await;
        demo.stop().await.expect("it stops");
        let demo = Demo::start(&folder, &vars(&ca)).await;
        demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 10 })).await;
        match protocol {
            "grpc" => over_grpc.says("performance.processed_items").await,
            _ => assert!(over_http.ended().await, "{}", over_http.said()),
        }
        demo.stop().await.expect("it stops");
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
