//! OTLP push of metrics to independent receivers.

mod support;

use std::sync::Arc;

use async_endpoints_testkit::server::{certify, free_port};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use support::{
    Demo, Folder,
    otlp::Rotel,
    peer::{Peer, python},
    until,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A collector that prints metrics.
struct Collector(Rotel);

impl Collector {
    async fn start(folder: &Folder) -> Self {
        Self(Rotel::start(folder, &["metrics"]).await)
    }

    /// The last received description of a metric, and its data point with these labels. None before the next metric begins.
    fn received(&self, metric: &str, labels: &[(&str, &str)]) -> Option<(String, String)> {
        let output = self.0.peer.output();
        let (_, metric) = output.rsplit_once(&format!("-> Name: {metric}\n"))?;
        let (metric, _) = metric.split_once("\nMetric #")?;
        let mut points = metric.split("DataPoints #");
        let description = points.next()?.to_owned();
        let labels: String = labels.iter().map(|(name, value)| format!("     -> {name}: Str({value})\n")).collect();
        points.find_map(|point| {
            let (_, point) = point.split_once('\n')?;
            Some((
                description.clone(),
                format!("{}\n", point.strip_prefix("Data point attributes:\n")?.strip_prefix(&labels)?),
            ))
        })
    }

    /// Waits for a metric with a data point with these labels.
    async fn receives(&self, metric: &str, labels: &[(&str, &str)]) -> (String, String) {
        until(metric, || self.received(metric, labels).is_some()).await;
        self.received(metric, labels).expect("a data point")
    }
}

/// Three jobs are pushed at the exit and not before, with exact values.
async fn check_push_at_exit(protocol: &str, endpoint: impl Fn(&Collector) -> String) {
    let folder = Folder::new();
    let collector = Collector::start(&folder).await;
    let endpoint = endpoint(&collector);
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ("OTEL_SERVICE_NAME", "pushed-at-exit"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=0b0b0b0b-0000-4000-8000-000000000007"),
    ];
    let demo = Demo::start(&folder, &vars).await;
    for _ in 0..3 {
        demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 1447 })).await;
    }
    assert!(!collector.0.peer.output().contains("async_job"), "{}", collector.0.peer.output());
    demo.stop().await.expect("a clean exit");
    let of_type = [("job_type", "PerformanceProcess")];
    let (description, point) = collector.receives("async_job.processed", &of_type).await;
    for part in ["Unit: {job}", "DataType: Sum", "IsMonotonic: true", "AGGREGATION_TEMPORALITY_CUMULATIVE"] {
        assert!(description.contains(part), "{part} in {description}");
    }
    assert!(point.contains("\nValue: 3\n"), "{point}");
    let (description, point) =
        collector.receives("async_job.total_time", &[of_type[0], ("outcome", "completed")]).await;
    for part in ["Unit: s", "DataType: Histogram", "AGGREGATION_TEMPORALITY_CUMULATIVE"] {
        assert!(description.contains(part), "{part} in {description}");
    }
    let bounds: Vec<&str> = point.lines().filter_map(|line| line.strip_prefix("ExplicitBounds #")).collect();
    let bounds: Vec<&str> = bounds.iter().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
    assert_eq!(bounds.join(" "), "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 1800 3600");
    assert!(point.contains("Count: 3\n") && !point.contains("Min:"), "{point}");
    let (_, items) = collector.receives("performance.processed_items", &[("task_type", "any")]).await;
    assert!(items.contains("\nValue: 4341\n"), "{items}");
    for resource in
        ["service.name: Str(pushed-at-exit)", "service.instance.id: Str(0b0b0b0b-0000-4000-8000-000000000007)"]
    {
        assert!(collector.0.peer.output().contains(resource), "{resource}");
    }
}

#[tokio::test]
async fn http_push_at_exit_is_exact() {
    check_push_at_exit("http/protobuf", |collector| format!("http://{}", collector.0.http)).await;
}

#[tokio::test]
async fn grpc_push_at_exit_is_exact() {
    check_push_at_exit("grpc", |collector| format!("http://{}", collector.0.grpc)).await;
}

#[tokio::test]
async fn push_repeats_at_its_interval() {
    let (folder, port) = (Folder::new(), free_port().to_string());
    // Job series exist from the start. This one comes with the first job.
    let args = ["--port", &port, "--await-metric", "performance.processed_items"];
    let mut receiver = Peer::start(&folder, &python("oteltap"), "oteltap", &args);
    let endpoint = format!("http://127.0.0.1:{port}");
    let vars = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_METRIC_EXPORT_INTERVAL", "100")];
    let demo = Demo::start(&folder, &vars).await;
    demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 10 })).await;
    assert!(receiver.exits_successfully().await, "{}", receiver.output());
    demo.stop().await.expect("a clean exit");
}

/// Starts a TLS proxy with the certificate in a folder. Returns its URL.
async fn tls_proxy(folder: &Folder, to: String) -> String {
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
async fn tls_push_needs_a_trusted_authority() {
    let (folder, port) = (Folder::new(), free_port().to_string());
    certify(&folder.join(""));
    let args = ["--port", &port, "--await-metric", "performance.processed_items"];
    let mut over_http = Peer::start(&folder, &python("oteltap"), "oteltap", &args);
    let http = tls_proxy(&folder, format!("127.0.0.1:{port}")).await;
    let over_grpc = Collector::start(&folder).await;
    let grpc_url = tls_proxy(&folder, over_grpc.0.grpc.clone()).await;
    let ca = folder.join("ca.crt").display().to_string();
    // An authority that did not sign the certificate.
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
        until("a certificate error in the log", || demo.log().contains("invalid peer certificate")).await;
        demo.stop().await.expect("a clean exit");
        let demo = Demo::start(&folder, &vars(&ca)).await;
        demo.finish("/api/performance", &json!({ "taskType": "any", "itemCount": 10 })).await;
        match protocol {
            "grpc" => over_grpc.0.peer.wait_for_output("performance.processed_items").await,
            _ => assert!(over_http.exits_successfully().await, "{}", over_http.output()),
        }
        demo.stop().await.expect("a clean exit");
    }
}

#[tokio::test]
async fn invalid_setting_ends_the_demo() {
    let folder = Folder::new();
    let vars =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")];
    let ended = folder.run(&vars).await;
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("invalid OTEL_EXPORTER_OTLP_PROTOCOL \"carrier-pigeon\": expected grpc or http/protobuf"),
        "{stderr}"
    );
}
