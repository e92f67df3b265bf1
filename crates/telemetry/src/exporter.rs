//! The OTLP exporters, with an HTTP client that does not depend on the features of other crates in the build.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
#[cfg(feature = "otlp-tls")]
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::metrics::Temporality;

use crate::{otlp::Otlp, sync::lock};

/// Builds an exporter from its builder. It needs a runtime.
macro_rules! exporter {
    ($builder:expr, $otlp:expr, $last_error:expr) => {
        match $otlp.protocol {
            Protocol::Grpc => {
                let grpc = $builder.with_tonic().with_endpoint(&$otlp.endpoint).with_timeout($otlp.timeout);
                #[cfg(feature = "otlp-tls")]
                let grpc = if $otlp.is_tls() { grpc.with_tls_config(tls::roots()) } else { grpc };
                grpc.build()
            }
            _ => {
                let http = $builder.with_http().with_protocol($otlp.protocol).with_endpoint(&$otlp.endpoint);
                http.with_timeout($otlp.timeout).with_http_client(client($otlp, $last_error)?).build()
            }
        }
    };
}

pub(crate) fn spans(otlp: &Otlp, last_error: &LastError) -> Result<SpanExporter, ExporterBuildError> {
    exporter!(SpanExporter::builder(), otlp, last_error)
}

pub(crate) fn log_records(otlp: &Otlp, last_error: &LastError) -> Result<LogExporter, ExporterBuildError> {
    exporter!(LogExporter::builder(), otlp, last_error)
}

pub(crate) fn metrics(otlp: &Otlp, last_error: &LastError) -> Result<MetricExporter, ExporterBuildError> {
    exporter!(MetricExporter::builder().with_temporality(Temporality::Cumulative), otlp, last_error)
}

fn client(otlp: &Otlp, last_error: &LastError) -> Result<ErrorRecorder, ExporterBuildError> {
    #[cfg(feature = "otlp-tls")]
    if otlp.is_tls() {
        return Ok(ErrorRecorder(Box::new(tls::client(otlp.timeout)?), last_error.clone()));
    }
    Ok(ErrorRecorder(Box::new(HyperClient::with_default_connector(otlp.timeout, None)), last_error.clone()))
}

/// The last request's error with its causes. The exporters report a failure without them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    pub(crate) fn take(&self) -> Option<String> {
        lock(&self.0).take()
    }

    /// Records an exporter's error, unless that of its request is recorded.
    pub(crate) fn or_record(&self, error: &impl ToString) {
        lock(&self.0).get_or_insert_with(|| error.to_string());
    }
}

/// An HTTP client that records the last error.
#[derive(Debug)]
struct ErrorRecorder(Box<dyn HttpClient>, LastError);

#[async_trait]
impl HttpClient for ErrorRecorder {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let result = self.0.send_bytes(request).await;
        let error = match &result {
            Err(error) => {
                let causes = std::iter::successors(Some(&**error as &dyn std::error::Error), |error| error.source());
                Some(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
            }
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status())),
        };
        *lock(&self.1.0) = error;
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
