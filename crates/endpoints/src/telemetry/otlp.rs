//! Metrics pushed to a collector, from a thread of their own: one that is slow or dead costs nobody anything.

use std::{
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
#[cfg(feature = "otlp-tls")]
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter, reader::MetricReader},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    events,
    provider::{SharedReader, TelemetryError},
};
use crate::error::panic_message;

/// A collector that takes OTLP, and how often it gets the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    protocol: Protocol,
    endpoint: String,
    interval: Duration,
    patience: Duration,
}

impl Otlp {
    /// Over gRPC, as to `http://localhost:4317`.
    pub fn grpc(endpoint: impl Into<String>) -> Self {
        Self::new(Protocol::Grpc, endpoint.into())
    }

    /// Protobuf over HTTP, as to `http://localhost:4318/v1/metrics`.
    pub fn http(endpoint: impl Into<String>) -> Self {
        Self::new(Protocol::HttpBinary, endpoint.into())
    }

    fn new(protocol: Protocol, endpoint: String) -> Self {
        Self { protocol, endpoint, interval: Duration::from_secs(60), patience: Duration::from_secs(10) }
    }

    /// Between two pushes; a minute by default.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long one push may take; ten seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// What the standard variables say; none if they name no endpoint, or switch metrics off.
    pub(super) fn from_vars(vars: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TelemetryError> {
        let signal = |rest: &str| {
            let (metrics, all) = (format!("OTEL_EXPORTER_OTLP_METRICS_{rest}"), format!("OTEL_EXPORTER_OTLP_{rest}"));
            vars(&metrics).map(|value| (metrics, value)).or_else(|| vars(&all).map(|value| (all, value)))
        };
        let Some((named_by, endpoint)) = signal("ENDPOINT") else { return Ok(None) };
        if !is_wanted(vars) {
            return Ok(None);
        }
        let protocol = match signal("PROTOCOL") {
            None => Protocol::HttpBinary,
            Some((name, value)) => match value.trim() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpBinary,
                _ => return Err(wrong(name, value, "grpc or http/protobuf is expected")),
            },
        };
        // What is set and cannot be had is refused: silence would be taken for consent.
        for (rest, taken, expected) in [
            (
                "TEMPORALITY_PREFERENCE",
                &["cumulative"][..],
                "cumulative is expected, as the scrape and the push read the same sums",
            ),
            ("COMPRESSION", &["gzip", "none"], "gzip or none is expected"),
            ("CERTIFICATE", &[], "SSL_CERT_FILE names the authorities that are trusted"),
            ("CLIENT_CERTIFICATE", &[], "no client certificate can be shown: put a collector of your own in between"),
            ("CLIENT_KEY", &[], "no client certificate can be shown: put a collector of your own in between"),
        ] {
            if let Some((name, value)) = signal(rest)
                && !taken.contains(&&*value.trim().to_ascii_lowercase())
            {
                return Err(wrong(name, value, expected));
            }
        }
        let endpoint = match protocol {
            // Only the signal's own variable names the whole path.
            Protocol::HttpBinary if !named_by.contains("METRICS") => {
                format!("{}/v1/metrics", endpoint.trim().trim_end_matches('/'))
            }
            _ => endpoint.trim().to_owned(),
        };
        let mut otlp = Self::new(protocol, endpoint);
        for (variable, duration) in [
            (Some("OTEL_METRIC_EXPORT_INTERVAL".to_owned()), &mut otlp.interval),
            (
                signal("TIMEOUT").map(|(name, _)| name).or(Some("OTEL_METRIC_EXPORT_TIMEOUT".to_owned())),
                &mut otlp.patience,
            ),
        ] {
            if let Some((name, value)) = variable.and_then(|name| Some((name.clone(), vars(&name)?))) {
                let millis = value.trim().parse().ok().filter(|millis| *millis > 0);
                *duration =
                    millis.map(Duration::from_millis).ok_or_else(|| wrong(name, value, "milliseconds are expected"))?;
            }
        }
        Ok(Some(otlp))
    }

    /// What cannot work is refused before anything is pushed in vain.
    fn check(&self) -> Result<(), TelemetryError> {
        if self.is_tls() && !cfg!(feature = "otlp-tls") {
            let why = "http is expected: for https, build with the feature otlp-tls";
            return Err(wrong("the OTLP endpoint".to_owned(), self.shown(), why));
        }
        Ok(())
    }

    /// Without who asks and their password.
    fn shown(&self) -> String {
        match (self.endpoint.split_once("://"), self.endpoint.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.endpoint.clone(),
        }
    }

    fn is_tls(&self) -> bool {
        self.endpoint.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    /// Needs a runtime: clients are made in it.
    fn exporter(&self, why: &Why) -> Result<MetricExporter, ExporterBuildError> {
        let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
        match self.protocol {
            Protocol::Grpc => {
                let grpc = builder.with_tonic().with_endpoint(&self.endpoint).with_timeout(self.patience);
                #[cfg(feature = "otlp-tls")]
                let grpc = if self.is_tls() { grpc.with_tls_config(tls::roots()) } else { grpc };
                grpc.build()
            }
            // A client of ours: which one the exporter makes is decided by the features of everybody in the build.
            _ => {
                let http = builder.with_http().with_protocol(self.protocol);
                let http = http.with_endpoint(&self.endpoint).with_timeout(self.patience);
                #[cfg(feature = "otlp-tls")]
                if self.is_tls() {
                    return http.with_http_client(Telling(tls::client(self.patience)?, why.clone())).build();
                }
                let client = HyperClient::with_default_connector(self.patience, None);
                http.with_http_client(Telling(client, why.clone())).build()
            }
        }
    }
}

/// Why the last request failed. The exporter says no more than that one did.
type Why = Arc<Mutex<Option<String>>>;

/// A client that tells it.
#[derive(Debug)]
struct Telling<C>(C, Why);

#[async_trait]
impl<C: HttpClient> HttpClient for Telling<C> {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.0.send_bytes(request).await;
        let why = answer.as_ref().err().map(|error| {
            let mut causes = std::iter::successors(Some(&**error as &dyn std::error::Error), |error| error.source());
            let first = causes.next().map(ToString::to_string).unwrap_or_default();
            causes.fold(first, |told, cause| format!("{told}: {cause}"))
        });
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = why;
        answer
    }
}

/// How collectors are reached by `https:`. Servers are trusted that the system's authorities vouch for, or those of
/// `SSL_CERT_FILE`.
#[cfg(feature = "otlp-tls")]
mod tls {
    use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
    use hyper_util::client::legacy::connect::HttpConnector;
    use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;

    use super::*;

    pub(super) fn client(patience: Duration) -> Result<HyperClient<HttpsConnector<HttpConnector>>, ExporterBuildError> {
        let ring = rustls::crypto::ring::default_provider();
        let trusting = HttpsConnectorBuilder::new().with_provider_and_native_roots(ring);
        let trusting = trusting.map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        Ok(HyperClient::new(trusting.https_only().enable_http1().build(), patience, None))
    }

    pub(super) fn roots() -> ClientTlsConfig {
        ClientTlsConfig::new().with_enabled_roots()
    }
}

/// Unless the environment wants metrics elsewhere, or nowhere.
pub(super) fn is_wanted(vars: &impl Fn(&str) -> Option<String>) -> bool {
    vars("OTEL_METRICS_EXPORTER").is_none_or(|exporters| exporters.split(',').any(|one| one.trim() == "otlp"))
}

fn wrong(name: String, value: String, expected: &str) -> TelemetryError {
    TelemetryError { name, value, expected: expected.to_owned() }
}

/// The thread that pushes. Ends when this is dropped.
pub(super) struct Push(mpsc::UnboundedSender<oneshot::Sender<()>>);

impl Push {
    pub(super) fn start(otlp: Otlp, reader: SharedReader) -> Result<Self, TelemetryError> {
        otlp.check()?;
        let endpoint = otlp.shown();
        let failed = |why: String| wrong("the OTLP endpoint".to_owned(), endpoint.clone(), &why);
        let (finish, asked) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("async-endpoints-otlp".to_owned());
        let spawned = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let made = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
                let pusher = runtime.block_on(async { Pusher::new(otlp, reader) });
                pusher.map(|pusher| (runtime, pusher)).map_err(|error| error.to_string())
            });
            match made {
                Err(why) => drop(tell.send(Err(why))),
                Ok((runtime, pusher)) => {
                    let _ = tell.send(Ok(()));
                    runtime.block_on(pusher.push_for_ever(asked));
                }
            }
        });
        spawned.map_err(|error: io::Error| failed(error.to_string()))?;
        told.recv().unwrap_or_else(|_| Err("its thread ended".to_owned())).map_err(failed)?;
        Ok(Self(finish))
    }

    /// Pushes once more, for as long as there is patience.
    pub(super) async fn finish(&self, patience: Duration) {
        let (done, over) = oneshot::channel();
        if self.0.send(done).is_ok() {
            let _ = timeout(patience, over).await;
        }
    }
}

/// What the thread does.
struct Pusher {
    otlp: Otlp,
    exporter: MetricExporter,
    why: Why,
    reader: SharedReader,
}

impl Pusher {
    fn new(otlp: Otlp, reader: SharedReader) -> Result<Self, ExporterBuildError> {
        let why = Why::default();
        let exporter = otlp.exporter(&why)?;
        Ok(Self { otlp, exporter, why, reader })
    }

    async fn push_for_ever(self, mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let mut failing = false;
        loop {
            let last = tokio::select! {
                () = sleep(self.otlp.interval) => None,
                done = asked.recv() => Some(done),
            };
            // Callbacks of the application's run in it.
            let pushed = AssertUnwindSafe(self.push()).catch_unwind().await;
            let pushed = pushed.unwrap_or_else(|panic| Err(panic_message(&*panic).to_owned()));
            match (&pushed, failing) {
                (Err(why), false) => events::push_failed(&self.otlp.shown(), why),
                (Ok(()), true) => events::push_works(&self.otlp.shown()),
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
        let exported: OTelSdkResult = within(self.otlp.patience, self.exporter.export(&collected)).await?;
        exported.map_err(|error| {
            let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
            why.unwrap_or_else(|| error.to_string())
        })
    }
}

async fn within<T>(patience: Duration, call: impl Future<Output = T>) -> Result<T, String> {
    timeout(patience, call).await.map_err(|_| format!("no answer within {patience:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Option<Otlp>, TelemetryError> {
        Otlp::from_vars(&|name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_standard_variables_have_their_meaning() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(read(&[(PROTOCOL, "grpc")]), Ok(None));
        assert_eq!(read(&[(ALL, "http://c:4318/")]), Ok(Some(Otlp::http("http://c:4318/v1/metrics"))));
        assert_eq!(read(&[(ALL, "http://c"), (OWN, "http://d/x")]), Ok(Some(Otlp::http("http://d/x"))));
        assert_eq!(read(&[(ALL, "http://c:4317"), (PROTOCOL, "grpc")]), Ok(Some(Otlp::grpc("http://c:4317"))));
        for (exporters, pushes) in [("none", false), ("prometheus", false), ("otlp", true), ("prometheus, otlp", true)]
        {
            let read = read(&[(ALL, "http://c"), ("OTEL_METRICS_EXPORTER", exporters)]).expect("no wrong value");
            assert_eq!(read.is_some(), pushes, "{exporters}");
        }
        let patient = read(&[(OWN, "http://d"), ("OTEL_METRIC_EXPORT_TIMEOUT", "30000")]);
        assert_eq!(patient, Ok(Some(Otlp::http("http://d").timeout(Duration::from_secs(30)))));
        assert!(read(&[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).is_ok());
        let often =
            read(&[(OWN, "http://d"), ("OTEL_METRIC_EXPORT_INTERVAL", "500"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]);
        let expected = Otlp::http("http://d").interval(Duration::from_millis(500)).timeout(Duration::from_millis(200));
        assert_eq!(often, Ok(Some(expected)));
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(Otlp::http("https://me:p@ss@c:4318/v1").shown(), "https://c:4318/v1");
        assert_eq!(Otlp::http("http://c:4318/v1").shown(), "http://c:4318/v1");
    }

    #[test]
    fn a_wrong_value_is_named() {
        let with = |name, value| read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]);
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"),
        ] {
            let error = with(name, value).expect_err(name);
            assert_eq!((error.name.as_str(), error.value.as_str()), (name, value));
        }
    }

    #[cfg(not(feature = "otlp-tls"))]
    #[test]
    fn without_tls_https_is_refused() {
        let refused = crate::Telemetry::builder().otlp(Otlp::grpc("https://c:4317")).build().expect_err("no TLS");
        assert_eq!(refused.value, "https://c:4317");
    }
}
