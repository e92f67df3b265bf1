//! Settings of the OTLP push.

use std::time::Duration;

use opentelemetry_otlp::Protocol;

use crate::error::TelemetryError;

/// An OTLP collector, and how often metrics are pushed to it.
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

    /// Pushes protobuf over HTTP, to an endpoint such as `http://localhost:4318/v1/metrics`.
    pub fn http(endpoint: impl Into<String>) -> Self {
        Self::new(Protocol::HttpBinary, endpoint.into())
    }

    fn new(protocol: Protocol, endpoint: String) -> Self {
        Self { protocol, endpoint, interval: Duration::from_secs(60), timeout: Duration::from_secs(10) }
    }

    /// Sets the time between two pushes. Defaults to 60 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the time limit of one push. Defaults to 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads the standard variables. None if no endpoint is set, or `OTEL_METRICS_EXPORTER` has no `otlp`.
    pub(crate) fn from_vars(vars: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TelemetryError> {
        // The variable of metrics has precedence over that of all signals.
        let read = |rest: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_METRICS_{rest}"), format!("OTEL_EXPORTER_OTLP_{rest}")];
            names.into_iter().find_map(|name| vars(&name).map(|value| (name, value)))
        };
        let Some((endpoint_name, endpoint)) = read("ENDPOINT").filter(|_| is_selected(vars)) else { return Ok(None) };
        let protocol = match read("PROTOCOL") {
            None => Protocol::HttpBinary,
            Some((name, value)) => match value.trim() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpBinary,
                _ => return Err(TelemetryError::setting(name, value, "grpc or http/protobuf")),
            },
        };
        for (rest, supported, expected) in UNSUPPORTED {
            if let Some((name, value)) = read(rest)
                && !supported.contains(&&*value.trim().to_ascii_lowercase())
            {
                return Err(TelemetryError::setting(name, value, expected));
            }
        }
        let endpoint = match protocol {
            // Only the variable of metrics contains the path.
            Protocol::HttpBinary if !endpoint_name.contains("METRICS") => {
                if endpoint.contains(['?', '#']) {
                    let expected = "a URL without a query; OTEL_EXPORTER_OTLP_METRICS_ENDPOINT takes one with a path";
                    let shown = Self::http(endpoint.trim()).without_credentials();
                    return Err(TelemetryError::setting(endpoint_name, shown, expected));
                }
                format!("{}/v1/metrics", endpoint.trim().trim_end_matches('/'))
            }
            _ => endpoint.trim().to_owned(),
        };
        let default = Self::new(protocol, endpoint);
        let of = |name: &str| vars(name).map(|value| (name.to_owned(), value));
        let timeout = read("TIMEOUT").or_else(|| of("OTEL_METRIC_EXPORT_TIMEOUT"));
        Ok(Some(Self {
            interval: millis(of("OTEL_METRIC_EXPORT_INTERVAL"))?.unwrap_or(default.interval),
            timeout: millis(timeout)?.unwrap_or(default.timeout),
            ..default
        }))
    }

    /// Rejects a TLS endpoint in a build without TLS.
    pub(crate) fn check(&self) -> Result<(), TelemetryError> {
        if self.is_tls() && !cfg!(feature = "otlp-tls") {
            let expected = "http:, or a build with the feature otlp-tls";
            return Err(TelemetryError::setting("OTLP endpoint", self.without_credentials(), expected));
        }
        Ok(())
    }

    /// The endpoint for logs and errors.
    pub(crate) fn without_credentials(&self) -> String {
        match (self.endpoint.split_once("://"), self.endpoint.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.endpoint.clone(),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.endpoint.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

/// Settings that are rejected instead of ignored: the end of the variable's name, supported values, and an explanation.
const UNSUPPORTED: [(&str, &[&str], &str); 5] = [
    ("TEMPORALITY_PREFERENCE", &["cumulative"], "cumulative, because the push and /metrics share one reader"),
    ("COMPRESSION", &["gzip", "none"], "gzip or none"),
    ("CERTIFICATE", &[], "no value: SSL_CERT_FILE sets the trusted authorities"),
    ("CLIENT_CERTIFICATE", &[], "no value: client certificates are not supported"),
    ("CLIENT_KEY", &[], "no value: client certificates are not supported"),
];

/// Whether `OTEL_METRICS_EXPORTER` is unset or contains `otlp`.
pub(crate) fn is_selected(vars: &impl Fn(&str) -> Option<String>) -> bool {
    vars("OTEL_METRICS_EXPORTER").is_none_or(|exporters| exporters.split(',').any(|name| name.trim() == "otlp"))
}

fn millis(variable: Option<(String, String)>) -> Result<Option<Duration>, TelemetryError> {
    let Some((name, value)) = variable else { return Ok(None) };
    match value.trim().parse() {
        Ok(millis @ 1..) => Ok(Some(Duration::from_millis(millis))),
        _ => Err(TelemetryError::setting(name, value, "milliseconds, 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Option<Otlp>, TelemetryError> {
        Otlp::from_vars(&|name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
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
        for (exporters, pushes) in [("none", false), ("prometheus", false), ("otlp", true), ("prometheus, otlp", true)]
        {
            let read = read(&[(ALL, "http://c"), ("OTEL_METRICS_EXPORTER", exporters)]).expect("valid values");
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
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0"),
        ] {
            let error = with(name, value).expect_err(name).to_string();
            assert!(error.starts_with(&format!("invalid {name} {value:?}: expected ")), "{error}");
        }
    }

    #[cfg(not(feature = "otlp-tls"))]
    #[test]
    fn https_without_tls_is_rejected() {
        let error = crate::Telemetry::builder().otlp(Otlp::grpc("https://c:4317")).build().expect_err("no TLS");
        assert!(error.to_string().contains("\"https://c:4317\""), "{error}");
    }
}
