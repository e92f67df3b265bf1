//! OpenTelemetry's standard variables.

use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;

use crate::error::TelemetryError;

/// The environment.
pub(crate) struct Vars<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    /// A variable without surrounding blanks. Empty ones are unset, as OpenTelemetry specifies.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A variable's parsed value.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, TelemetryError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| TelemetryError::setting(name, value, expected))
    }

    /// The parsed value of an enum. As OpenTelemetry specifies, its case does not matter: `parse` gets it in lower case.
    pub(crate) fn choice<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, TelemetryError> {
        self.parsed(name, expected, |value| parse(&value.to_ascii_lowercase()))
    }

    /// A time limit in milliseconds. As OpenTelemetry specifies, 0 means no limit.
    pub(crate) fn time_limit(&self, name: &str) -> Result<Option<Duration>, TelemetryError> {
        let limit = |millis| if millis == 0 { Duration::MAX } else { Duration::from_millis(millis) };
        self.parsed(name, "milliseconds, or 0 for no limit", |value| value.parse().ok().map(limit))
    }

    pub(crate) fn millis(&self, name: &str) -> Result<Option<Duration>, TelemetryError> {
        let parse = |value: &str| value.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        self.parsed(name, "milliseconds, 1 or more", parse)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, TelemetryError> {
        self.parsed(name, "a number from 1 to 1000000", |value| {
            value.parse().ok().filter(|count| (1..=1_000_000).contains(count))
        })
    }

    /// Whether `OTEL_SDK_DISABLED` is `true`.
    pub(crate) fn is_disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The sampler, by `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    pub(crate) fn sampler(&self) -> Result<Option<Sampler>, TelemetryError> {
        let expected = "always_on, always_off, traceidratio, or one of them after parentbased_";
        let sampler = self.choice("OTEL_TRACES_SAMPLER", expected, |name| {
            let (is_parent_based, root) = name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root));
            let root = match root {
                "always_on" => Ok(Sampler::AlwaysOn),
                "always_off" => Ok(Sampler::AlwaysOff),
                "traceidratio" => self.ratio().map(Sampler::TraceIdRatioBased),
                _ => return None,
            };
            Some(root.map(|root| if is_parent_based { Sampler::ParentBased(Box::new(root)) } else { root }))
        });
        sampler?.transpose()
    }

    fn ratio(&self) -> Result<f64, TelemetryError> {
        let parse = |value: &str| value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        Ok(self.parsed("OTEL_TRACES_SAMPLER_ARG", "a ratio from 0 to 1", parse)?.unwrap_or(1.0))
    }

    /// Whether `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` asks for base-2 exponential histograms.
    pub(crate) fn exponential_histograms(&self) -> Result<Option<bool>, TelemetryError> {
        const NAMES: [&str; 2] = ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"];
        let parse = |value: &str| NAMES.iter().position(|name| *name == value).map(|index| index == 1);
        let expected = "explicit_bucket_histogram or base2_exponential_bucket_histogram";
        self.choice("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", expected, parse)
    }

    /// Whether trace contexts of callers are read, by `OTEL_PROPAGATORS`. Baggage is accepted, because it is in OpenTelemetry's
    /// default, and not passed on.
    pub(crate) fn propagates(&self) -> Result<Option<bool>, TelemetryError> {
        self.choice("OTEL_PROPAGATORS", "tracecontext or none", |value| {
            let names: Vec<&str> = value.split(',').map(str::trim).collect();
            let known = names.iter().all(|name| ["tracecontext", "baggage", "none"].contains(name));
            known.then(|| names.contains(&"tracecontext"))
        })
    }

    /// What is set and has no effect, one line each.
    pub(crate) fn notices(&self) -> Vec<&'static str> {
        let config = self.get("OTEL_CONFIG_FILE").map(|_| "OTEL_CONFIG_FILE is ignored: only variables are read");
        let has_baggage = |value: &String| value.to_ascii_lowercase().contains("baggage");
        let baggage = self.get("OTEL_PROPAGATORS").filter(has_baggage);
        config.into_iter().chain(baggage.map(|_| "OTEL_PROPAGATORS: baggage is not passed on")).collect()
    }

    /// Rejects malformed headers. The exporters read the same variables, and skip what they cannot parse.
    #[cfg(feature = "otlp")]
    pub(crate) fn check_headers(&self, name: &str) -> Result<(), TelemetryError> {
        let valid = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let is_name = !key.trim().is_empty() && key.trim().bytes().all(is_token);
            let is_value = crate::resource::decode(value.trim())?.bytes().all(|b| (b' '..=b'~').contains(&b));
            (is_name && is_value).then_some(())
        };
        let is_valid =
            |list: String| list.split(',').filter(|pair| !pair.trim().is_empty()).all(|pair| valid(pair).is_some());
        match self.get(name).map(is_valid) {
            Some(false) => Err(TelemetryError::setting(name, "(hidden)", "name=value pairs with commas between them")),
            _ => Ok(()),
        }
    }
}

/// The queue in front of an exporter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Maximum number of queued items. Further ones are dropped and counted.
    pub(crate) queue: usize,
    /// Maximum number of items in one export.
    pub(crate) size: usize,
    /// Time between two exports.
    pub(crate) delay: Duration,
    /// Time limit of one export.
    pub(crate) timeout: Duration,
}

impl Batch {
    /// OpenTelemetry's default of spans.
    pub(crate) const SPANS: Self =
        Self { queue: 2_048, size: 512, delay: Duration::from_secs(5), timeout: Duration::from_secs(30) };
    /// OpenTelemetry's default of log records.
    pub(crate) const LOGS: Self = Self { delay: Duration::from_secs(1), ..Self::SPANS };

    /// The settings in the variables that begin with `prefix`.
    pub(crate) fn read(self, prefix: &str, vars: &Vars<'_>) -> Result<Self, TelemetryError> {
        let name = |rest: &str| format!("{prefix}_{rest}");
        let queue = vars.count(&name("MAX_QUEUE_SIZE"))?.unwrap_or(self.queue);
        let size = vars.count(&name("MAX_EXPORT_BATCH_SIZE"))?;
        if let Some(size) = size.filter(|size| *size > queue) {
            let expected = format!("at most {prefix}_MAX_QUEUE_SIZE, {queue}");
            return Err(TelemetryError::setting(name("MAX_EXPORT_BATCH_SIZE"), size.to_string(), &expected));
        }
        Ok(Self {
            queue,
            size: size.unwrap_or(self.size.min(queue)),
            delay: vars.millis(&name("SCHEDULE_DELAY"))?.unwrap_or(self.delay),
            timeout: vars.time_limit(&name("EXPORT_TIMEOUT"))?.unwrap_or(self.timeout),
        })
    }

    /// The same settings for the SDK's processor of spans.
    #[cfg(any(feature = "console", feature = "otlp"))]
    pub(crate) fn of_spans(self) -> opentelemetry_sdk::trace::BatchConfig {
        let config = opentelemetry_sdk::trace::BatchConfigBuilder::default().with_max_queue_size(self.queue);
        config.with_max_export_batch_size(self.size).with_scheduled_delay(self.delay).build()
    }

    /// The same settings for the SDK's processor of log records.
    #[cfg(any(feature = "console", feature = "otlp"))]
    pub(crate) fn of_log_records(self) -> opentelemetry_sdk::logs::BatchConfig {
        let config = opentelemetry_sdk::logs::BatchConfigBuilder::default().with_max_queue_size(self.queue);
        config.with_max_export_batch_size(self.size).with_scheduled_delay(self.delay).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(vars: &[(&str, &str)], read: impl FnOnce(&Vars<'_>) -> T) -> T {
        let of = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        read(&Vars(&of))
    }

    #[test]
    fn sampler_is_read() {
        let read = |name, ratio| {
            let sampler =
                with(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", ratio)], |vars| vars.sampler());
            format!("{:?}", sampler.expect("valid").expect("set"))
        };
        assert_eq!(read("always_off", "ignored"), "AlwaysOff");
        assert_eq!(read("traceidratio", "0.1"), "TraceIdRatioBased(0.1)");
        assert_eq!(read("parentbased_traceidratio", ""), "ParentBased(TraceIdRatioBased(1.0))");
        assert_eq!(read("parentbased_always_on", ""), "ParentBased(AlwaysOn)");
        assert_eq!(read("ParentBased_Always_Off", ""), "ParentBased(AlwaysOff)");
        assert!(with(&[], |vars| vars.sampler()).is_ok_and(|sampler| sampler.is_none()));
    }

    #[test]
    fn queue_is_read() {
        let vars = [("P_MAX_QUEUE_SIZE", "100"), ("P_SCHEDULE_DELAY", "20"), ("P_EXPORT_TIMEOUT", "3000")];
        let read = with(&vars, |vars| Batch::LOGS.read("P", vars)).expect("valid");
        let millis = Duration::from_millis;
        assert_eq!(read, Batch { queue: 100, size: 100, delay: millis(20), timeout: millis(3_000) });
        assert_eq!(with(&[], |vars| Batch::SPANS.read("P", vars)), Ok(Batch::SPANS));
        let unlimited = with(&[("P_EXPORT_TIMEOUT", "0")], |vars| Batch::SPANS.read("P", vars));
        assert_eq!(unlimited, Ok(Batch { timeout: Duration::MAX, ..Batch::SPANS }));
    }

    #[test]
    fn propagators_are_read() {
        let read = |value| with(&[("OTEL_PROPAGATORS", value)], |vars| (vars.propagates(), vars.notices().len()));
        assert_eq!(read("tracecontext"), (Ok(Some(true)), 0));
        assert_eq!(read("tracecontext,baggage"), (Ok(Some(true)), 1));
        assert_eq!(read("TraceContext, Baggage"), (Ok(Some(true)), 1));
        assert_eq!(read("none"), (Ok(Some(false)), 0));
        assert_eq!(read(""), (Ok(None), 0));
    }

    #[test]
    fn histogram_aggregation_is_read() {
        let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let read = |value| with(&[(name, value)], |vars| vars.exponential_histograms());
        assert_eq!(read("BASE2_EXPONENTIAL_BUCKET_HISTOGRAM"), Ok(Some(true)));
        assert_eq!(read("explicit_bucket_histogram"), Ok(Some(false)));
    }

    #[test]
    fn config_file_is_noticed() {
        assert_eq!(with(&[("OTEL_CONFIG_FILE", "/otel.yaml")], |vars| vars.notices().len()), 1);
    }

    #[test]
    fn invalid_value_names_its_variable() {
        let histograms = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        for vars in [
            &[("OTEL_TRACES_SAMPLER", "jaeger_remote")][..],
            &[("OTEL_TRACES_SAMPLER_ARG", "1.5"), ("OTEL_TRACES_SAMPLER", "traceidratio")],
            &[("OTEL_TRACES_SAMPLER_ARG", "NaN"), ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "0")],
            &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "513"), ("OTEL_BSP_MAX_QUEUE_SIZE", "512")],
            &[("OTEL_BLRP_SCHEDULE_DELAY", "1s")],
            &[("OTEL_BLRP_EXPORT_TIMEOUT", "-1")],
            &[("OTEL_PROPAGATORS", "b3")],
            &[("OTEL_TRACES_EXPORTER", "zipkin")],
            &[("OTEL_LOGS_EXPORTER", "prometheus")],
            &[(histograms, "base2")],
        ] {
            let of = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let error = crate::Telemetry::builder().vars(&of).build().expect_err(vars[0].0).to_string();
            assert!(error.starts_with(&format!("invalid {} {:?}: expected ", vars[0].0, vars[0].1)), "{error}");
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn malformed_headers_are_hidden_in_the_error() {
        let check = |value| with(&[("H", value)], |vars| vars.check_headers("H"));
        for valid in ["", "api-key=s%20p, a=b=c", "x="] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for invalid in ["secret", "=secret", "a b=secret", "a=secret%0a", "a=secret%2"] {
            let error = check(invalid).expect_err(invalid).to_string();
            assert!(error.starts_with("invalid H") && !error.contains("secret"), "{error}");
        }
    }
}
