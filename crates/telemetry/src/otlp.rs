//! Settings of the OTLP exporters.

use std::time::Duration;

use opentelemetry_otlp::Protocol;

use crate::{env::Vars, error::TelemetryError, signal::Signal};

/// An OTLP collector, and how telemetry is pushed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl Otlp {
    /// Pushes over gRPC, to an endpoint such as `http://localhost:4317`.
    pub fn grpc(endpoint: impl Into<String>) -> Self {
        Self::new(Protocol::Grpc, endpoint.into())
    }

    /// Pushes protobuf over HTTP, to an endpoint such as `http://localhost:4318`. Each signal adds its path, such as
    /// `/v1/traces`.
    pub fn http(endpoint: impl Into<String>) -> Self {
        Self::new(Protocol::HttpBinary, endpoint.into())
    }

    fn new(protocol: Protocol, endpoint: String) -> Self {
        Self { protocol, endpoint, interval: Duration::from_secs(60), timeout: Duration::from_secs(10) }
    }

    /// Sets the time between two pushes of metrics. Defaults to 60 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the time limit of one push, with its retries. Defaults to 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads the standard variables of a signal. None if no endpoint is set.
    pub(crate) fn from_vars(signal: Signal, vars: &Vars<'_>) -> Result<Option<Self>, TelemetryError> {
        let Some((name, endpoint)) = read(signal, "ENDPOINT", vars) else { return Ok(None) };
        let mut otlp = Self::new(protocol(signal, vars)?, endpoint);
        // Only the variable of one signal contains the path.
        match name.contains(signal.upper()) {
            true => otlp.check_url(&name)?,
            false => otlp = otlp.at(signal, &name)?,
        }
        otlp.with_vars(signal, vars).map(Some)
    }

    /// The collector on this machine at its standard port.
    pub(crate) fn local(signal: Signal, vars: &Vars<'_>) -> Result<Self, TelemetryError> {
        let protocol = protocol(signal, vars)?;
        Self::new(protocol, local_url(protocol)).at(signal, "endpoint")?.with_vars(signal, vars)
    }

    /// The settings besides the endpoint.
    fn with_vars(self, signal: Signal, vars: &Vars<'_>) -> Result<Self, TelemetryError> {
        for (rest, supported, expected) in UNSUPPORTED {
            if let Some((name, _)) = read(signal, rest, vars) {
                vars.choice(&name, expected, |value| supported.contains(&value).then_some(()))?;
            }
        }
        if let Some((name, _)) = read(signal, "HEADERS", vars) {
            vars.check_headers(&name)?;
        }
        let timeout = match read(signal, "TIMEOUT", vars) {
            Some((name, _)) => vars.time_limit(&name)?,
            None if signal == Signal::Metrics => vars.time_limit("OTEL_METRIC_EXPORT_TIMEOUT")?,
            None => None,
        };
        Ok(Self {
            interval: vars.millis("OTEL_METRIC_EXPORT_INTERVAL")?.unwrap_or(self.interval),
            timeout: timeout.unwrap_or(self.timeout),
            ..self
        })
    }

    /// This collector's endpoint of one signal. `name` is the setting of the endpoint.
    pub(crate) fn at(mut self, signal: Signal, name: &str) -> Result<Self, TelemetryError> {
        self.check_url(name)?;
        if self.protocol == Protocol::Grpc {
            return Ok(self);
        }
        if self.endpoint.contains(['?', '#']) {
            let expected = "a URL without a query; the endpoint of one signal takes one with a path";
            return Err(TelemetryError::setting(name, self.without_credentials(), expected));
        }
        self.endpoint = format!("{}{}", self.endpoint.trim_end_matches('/'), signal.path());
        Ok(self)
    }

    /// Rejects an endpoint that is no URL, and a TLS endpoint in a build without TLS.
    pub(crate) fn check(&self) -> Result<(), TelemetryError> {
        self.check_url("OTLP endpoint")?;
        if self.is_tls() && !cfg!(feature = "otlp-tls") {
            let expected = "http:, or a build with the feature otlp-tls";
            return Err(TelemetryError::setting("OTLP endpoint", self.without_credentials(), expected));
        }
        Ok(())
    }

    /// Rejects an endpoint without a scheme or host. gRPC takes `unix:///path` as well. `name` is the setting of the endpoint.
    fn check_url(&self, name: &str) -> Result<(), TelemetryError> {
        let (scheme, rest) = self.endpoint.split_once("://").unwrap_or_default();
        let is_http = ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme));
        let is_url = is_http && !rest.is_empty() && !rest.starts_with(['/', '?', '#']);
        let is_socket = scheme == "unix" && self.protocol == Protocol::Grpc;
        if is_url || is_socket {
            return Ok(());
        }
        let expected = format!("a URL such as {}", local_url(self.protocol));
        Err(TelemetryError::setting(name, self.without_credentials(), &expected))
    }

    /// The endpoint for logs and errors.
    pub(crate) fn without_credentials(&self) -> String {
        match (self.endpoint.split_once("://"), self.endpoint.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => self.endpoint.clone(),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.endpoint.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

/// The standard endpoint on this machine.
fn local_url(protocol: Protocol) -> String {
    let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
    format!("http://localhost:{port}")
}

/// Settings that are rejected instead of ignored: the end of the variable's name, supported values, and an explanation.
const UNSUPPORTED: [(&str, &[&str], &str); 5] = [
    ("TEMPORALITY_PREFERENCE", &["cumulative"], "cumulative, because the push and /metrics share one reader"),
    ("COMPRESSION", &["gzip", "none"], "gzip or none"),
    ("CERTIFICATE", &[], "no value: SSL_CERT_FILE sets the trusted authorities"),
    ("CLIENT_CERTIFICATE", &[], "no value: client certificates are not supported"),
    ("CLIENT_KEY", &[], "no value: client certificates are not supported"),
];

/// A variable's name and value. The variable of the signal has precedence over that of all signals.
fn read(signal: Signal, rest: &str, vars: &Vars<'_>) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_{}_{rest}", signal.upper()), format!("OTEL_EXPORTER_OTLP_{rest}")];
    names.into_iter().find_map(|name| vars.get(&name).map(|value| (name, value)))
}

fn protocol(signal: Signal, vars: &Vars<'_>) -> Result<Protocol, TelemetryError> {
    let Some((name, _)) = read(signal, "PROTOCOL", vars) else { return Ok(Protocol::HttpBinary) };
    let protocol = vars.choice(&name, "grpc or http/protobuf", |value| match value {
        "grpc" => Some(Protocol::Grpc),
        "http/protobuf" => Some(Protocol::HttpBinary),
        _ => None,
    });
    Ok(protocol?.unwrap_or(Protocol::HttpBinary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::Destinations;

    fn read(vars: &[(&str, &str)]) -> Result<Option<Otlp>, TelemetryError> {
        read_of(Signal::Metrics, vars)
    }

    fn read_of(signal: Signal, vars: &[(&str, &str)]) -> Result<Option<Otlp>, TelemetryError> {
        let of = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Destinations::default().read(signal, &Vars(&of)).map(|destinations| destinations.otlp)
    }

    #[test]
    fn standard_variables_are_read() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(read(&[(PROTOCOL, "grpc")]), Ok(None));
        assert_eq!(read(&[(ALL, "http://c:4318/")]), Ok(Some(Otlp::http("http://c:4318/v1/metrics"))));
        assert_eq!(read(&[(ALL, "http://c"), (OWN, "http://d/x")]), Ok(Some(Otlp::http("http://d/x"))));
        assert_eq!(read(&[(ALL, "http://c:4317"), (PROTOCOL, "grpc")]), Ok(Some(Otlp::grpc("http://c:4317"))));
        assert_eq!(read(&[(ALL, "http://c:4317"), (PROTOCOL, "GRPC")]), Ok(Some(Otlp::grpc("http://c:4317"))));
        for (exporters, pushes) in [("None", false), ("prometheus", false), ("OTLP", true), ("Prometheus, otlp", true)]
        {
            let read = read(&[(ALL, "http://c"), ("OTEL_METRICS_EXPORTER", exporters)]).expect(exporters);
            assert_eq!(read.is_some(), pushes, "{exporters}");
        }
        let patient = read(&[(OWN, "http://d"), ("OTEL_METRIC_EXPORT_TIMEOUT", "30000")]);
        assert_eq!(patient, Ok(Some(Otlp::http("http://d").timeout(Duration::from_secs(30)))));
        let unlimited = read(&[(OWN, "http://d"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")]);
        assert_eq!(unlimited, Ok(Some(Otlp::http("http://d").timeout(Duration::MAX))));
        assert!(read(&[(ALL, "http://c"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZip")]).is_ok());
        let often =
            read(&[(OWN, "http://d"), ("OTEL_METRIC_EXPORT_INTERVAL", "500"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]);
        let expected = Otlp::http("http://d").interval(Duration::from_millis(500)).timeout(Duration::from_millis(200));
        assert_eq!(often, Ok(Some(expected)));
    }

    #[test]
    fn each_signal_has_its_own_settings() {
        let vars = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "500"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        let read = Signal::ALL.map(|signal| read_of(signal, &vars).expect("valid values"));
        let logs = Otlp::grpc("http://c").timeout(Duration::from_millis(500));
        assert_eq!(read, [Some(Otlp::http("http://t/x")), None, Some(logs)]);
    }

    #[test]
    fn named_exporter_needs_no_endpoint() {
        let read = |protocol| {
            read_of(Signal::Traces, &[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)])
        };
        assert_eq!(read("grpc"), Ok(Some(Otlp::grpc("http://localhost:4317"))));
        assert_eq!(read("http/protobuf"), Ok(Some(Otlp::http("http://localhost:4318/v1/traces"))));
    }

    #[test]
    fn endpoint_without_scheme_is_rejected() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        for (name, protocol, value, shown, port) in [
            (ALL, "http/protobuf", "localhost:4318", "localhost:4318", 4318),
            (OWN, "http/protobuf", "me:pw@c:4318/v1/metrics", "c:4318/v1/metrics", 4318),
            (ALL, "grpc", "localhost:4317", "localhost:4317", 4317),
            (ALL, "grpc", "http://", "http://", 4317),
            (ALL, "http/protobuf", "ftp://c", "ftp://c", 4318),
        ] {
            let error = read(&[(name, value), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]).expect_err(value).to_string();
            let expected = format!("invalid {name} {shown:?}: expected a URL such as http://localhost:{port}");
            assert_eq!(error, expected);
        }
        for otlp in [Otlp::http("localhost:4318"), Otlp::grpc("localhost:4318")] {
            let error = crate::Telemetry::builder().otlp(otlp).build().expect_err("no scheme").to_string();
            assert!(error.starts_with("invalid OTLP endpoint \"localhost:4318\": expected a URL such as "), "{error}");
        }
    }

    #[test]
    fn socket_is_for_grpc_only() {
        assert_eq!(Otlp::grpc("unix:///run/otlp").check(), Ok(()));
        assert!(Otlp::http("unix:///run/otlp").check().is_err());
    }

    #[test]
    fn credentials_are_removed() {
        assert_eq!(Otlp::http("https://me:p@ss@c:4318/v1").without_credentials(), "https://c:4318/v1");
        assert_eq!(Otlp::http("http://c:4318/v1").without_credentials(), "http://c:4318/v1");
    }

    #[test]
    fn query_that_would_swallow_the_path_is_rejected() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        for end in ["?key=7", "/?key=7", "#metrics"] {
            let error = read(&[(ALL, &format!("http://me:p@c:4318{end}"))]).expect_err(end).to_string();
            assert!(error.starts_with(&format!("invalid {ALL} \"http://c:4318{end}\": expected ")), "{error}");
        }
        assert_eq!(read(&[(OWN, "http://c/x?key=7")]), Ok(Some(Otlp::http("http://c/x?key=7"))));
    }

    #[test]
    fn invalid_value_is_reported() {
        let with = |name, value| read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]);
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1"),
            ("OTEL_METRICS_EXPORTER", "zipkin"),
        ] {
            let error = with(name, value).expect_err(name).to_string();
            assert!(error.starts_with(&format!("invalid {name} {value:?}: expected ")), "{error}");
            assert_eq!(error.contains("prometheus"), name == "OTEL_METRICS_EXPORTER", "{error}");
        }
    }

    #[cfg(not(feature = "otlp-tls"))]
    #[test]
    fn https_without_tls_is_rejected() {
        let error = crate::Telemetry::builder().otlp(Otlp::grpc("https://c:4317")).build().expect_err("no TLS");
        assert!(error.to_string().contains("\"https://c:4317\""), "{error}");
    }
}
