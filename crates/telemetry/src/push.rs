//! The OTLP push: a thread with its own runtime, so that a slow or missing collector delays nothing else.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
#[cfg(feature = "otlp-tls")]
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::metrics::{
    Temporality, data::ResourceMetrics, exporter::PushMetricExporter, reader::MetricReader,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{error::TelemetryError, log_writer::log_safely, otlp::Otlp, reader::SharedReader, sync::lock};

/// The thread that pushes. It ends when this is dropped.
pub(crate) struct Push(mpsc::UnboundedSender<oneshot::Sender<()>>);

impl Push {
    pub(crate) fn start(otlp: Otlp, reader: SharedReader) -> Result<Self, TelemetryError> {
        otlp.check()?;
        let endpoint = otlp.without_credentials();
        let failed = |reason: String| TelemetryError::Exporter { endpoint: endpoint.clone(), reason };
        let (finish, requests) = mpsc::unbounded_channel();
        let (report, reported) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("async-endpoints-otlp".to_owned());
        let spawned = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let started = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
                let pusher = runtime.block_on(async { Pusher::new(otlp, reader) });
                pusher.map(|pusher| (runtime, pusher)).map_err(|error| error.to_string())
            });
            match started {
                Err(reason) => drop(report.send(Err(reason))),
                Ok((runtime, pusher)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(pusher.run(requests));
                }
            }
        });
        spawned.map_err(|error| failed(error.to_string()))?;
        reported.recv().unwrap_or_else(|_| Err("the push thread panicked".to_owned())).map_err(failed)?;
        Ok(Self(finish))
    }

    /// Pushes once more and ends the thread. Returns after `limit` at the latest.
    pub(crate) async fn finish(&self, limit: Duration) {
        let (done, finished) = oneshot::channel();
        if self.0.send(done).is_ok() {
            let _ = timeout(limit, finished).await;
        }
    }
}

struct Pusher {
    otlp: Otlp,
    exporter: MetricExporter,
    last_error: LastError,
    reader: SharedReader,
}

impl Pusher {
    /// Needs a runtime, because the HTTP clients do.
    fn new(otlp: Otlp, reader: SharedReader) -> Result<Self, ExporterBuildError> {
        let last_error = LastError::default();
        let exporter = exporter(&otlp, &last_error)?;
        Ok(Self { otlp, exporter, last_error, reader })
    }

    /// Pushes at each interval, until a request asks for the last push. Logs the first failure and the first success after it.
    async fn run(self, mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let endpoint = self.otlp.without_credentials();
        let mut failing = false;
        loop {
            let last = tokio::select! {
                () = sleep(self.otlp.interval) => None,
                done = requests.recv() => Some(done),
            };
            let pushed = self.push().await;
            match (&pushed, failing) {
                (Err(why), false) => {
                    log_safely(|| tracing::warn!(endpoint, why, "metrics cannot be pushed; the push is retried"));
                }
                (Ok(()), true) => log_safely(|| tracing::info!(endpoint, "metrics are pushed again")),
                _ => {}
            }
            failing = pushed.is_err();
            if let Some(done) = last {
                return drop(done);
            }
        }
    }

    async fn push(&self) -> Result<(), String> {
        let mut collected = ResourceMetrics::default();
        self.reader.collect(&mut collected).map_err(|error| error.to_string())?;
        let limit = self.otlp.timeout;
        let exported = timeout(limit, self.exporter.export(&collected)).await;
        let exported = exported.map_err(|_| format!("no answer within {limit:?}"))?;
        exported.map_err(|error| lock(&self.last_error).take().unwrap_or_else(|| error.to_string()))
    }
}

fn exporter(otlp: &Otlp, last_error: &LastError) -> Result<MetricExporter, ExporterBuildError> {
    let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
    match otlp.protocol {
        Protocol::Grpc => {
            let grpc = builder.with_tonic().with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
            #[cfg(feature = "otlp-tls")]
            let grpc = if otlp.is_tls() { grpc.with_tls_config(tls::roots()) } else { grpc };
            grpc.build()
        }
        // The exporter's default client depends on the features of other crates in the build.
        _ => {
            let http = builder.with_http().with_protocol(otlp.protocol);
            let http = http.with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
            #[cfg(feature = "otlp-tls")]
            if otlp.is_tls() {
                return http.with_http_client(ErrorRecorder(tls::client(otlp.timeout)?, last_error.clone())).build();
            }
            let client = HyperClient::with_default_connector(otlp.timeout, None);
            http.with_http_client(ErrorRecorder(client, last_error.clone())).build()
        }
    }
}

/// The last request's error with its causes. The exporter reports a failure without them.
type LastError = Arc<Mutex<Option<String>>>;

/// An HTTP client that records the last error.
#[derive(Debug)]
struct ErrorRecorder<C>(C, LastError);

#[async_trait]
impl<C: HttpClient> HttpClient for ErrorRecorder<C> {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.0.send_bytes(request).await;
        let error = result.as_ref().err().map(|error| {
            let causes = std::iter::successors(Some(&**error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        });
        *lock(&self.1) = error;
        result
    }
}

/// TLS clients. They trust the system's certificate authorities, or those in the file named by `SSL_CERT_FILE`.
#[cfg(feature = "otlp-tls")]
mod tls {
    use std::time::Duration;

    use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
    use hyper_util::client::legacy::connect::HttpConnector;
    use opentelemetry_http::hyper::HyperClient;
    use opentelemetry_otlp::{ExporterBuildError, tonic_types::transport::ClientTlsConfig};

    pub(super) fn client(timeout: Duration) -> Result<HyperClient<HttpsConnector<HttpConnector>>, ExporterBuildError> {
        let ring = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new().with_provider_and_native_roots(ring);
        let connector = connector.map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        Ok(HyperClient::new(connector.https_only().enable_http1().build(), timeout, None))
    }

    pub(super) fn roots() -> ClientTlsConfig {
        ClientTlsConfig::new().with_enabled_roots()
    }
}
