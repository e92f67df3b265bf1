//! Set-up of a meter provider: resource, views, readers.

use std::sync::{Arc, Mutex};

use opentelemetry::{KeyValue, metrics::MeterProvider};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    resource::{SdkProvidedResourceDetector, TelemetryResourceDetector},
};
use uuid::Uuid;

use crate::{
    error::TelemetryError,
    provider::{Sdk, Telemetry},
    reader::SharedReader,
    resource,
    views::Views,
};

/// Resource attribute that identifies the process among those of its service.
const INSTANCE_ID: &str = "service.instance.id";

/// Sets up a meter provider; made by [`Telemetry::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is recorded before `build`"]
pub struct TelemetryBuilder {
    service_name: Option<String>,
    service_version: Option<String>,
    attributes: Vec<KeyValue>,
    bounds: Vec<(String, Vec<f64>)>,
    disabled: bool,
    #[cfg(feature = "otlp")]
    otlp: Option<crate::otlp::Otlp>,
    invalid: Option<TelemetryError>,
}

impl Telemetry {
    /// Sets up a meter provider.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder::default()
    }

    /// Sets up a meter provider from OpenTelemetry's standard variables.
    ///
    /// Reads `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SDK_DISABLED`; with the feature `otlp`, if an endpoint
    /// is set, also `OTEL_METRICS_EXPORTER`, `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRIC_EXPORT_TIMEOUT` and
    /// `OTEL_EXPORTER_OTLP_[METRICS_]` with `ENDPOINT`, `PROTOCOL`, `HEADERS`, `TIMEOUT` and `COMPRESSION`.
    ///
    /// # Errors
    ///
    /// An invalid or unsupported value, or an exporter that cannot start.
    pub fn from_env() -> Result<Self, TelemetryError> {
        Self::builder().env().build()
    }
}

impl TelemetryBuilder {
    /// Sets the resource's `service.name`. `OTEL_SERVICE_NAME` overrides it.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Sets the version in `build_info` and in the resource's `service.version`, usually `env!("CARGO_PKG_VERSION")`.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.service_version = Some(version.into());
        self
    }

    /// Adds a resource attribute. `OTEL_RESOURCE_ATTRIBUTES` overrides it.
    pub fn resource(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Sets the upper bucket bounds of the attached library's histograms whose names begin with `prefix`, such as
    /// `async_job.`. Of several matching prefixes, the last counts.
    pub fn bounds(mut self, prefix: impl Into<String>, bounds: impl Into<Vec<f64>>) -> Self {
        self.bounds.push((prefix.into(), bounds.into()));
        self
    }

    /// Reads OpenTelemetry's standard variables: see [`Telemetry::from_env`].
    pub fn env(self) -> Self {
        self.vars(variable)
    }

    fn vars(mut self, vars: impl Fn(&str) -> Option<String>) -> Self {
        self.disabled = vars("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        #[cfg(feature = "otlp")]
        match crate::otlp::Otlp::from_vars(&vars) {
            Ok(otlp) => self.otlp = otlp.or(self.otlp.filter(|_| crate::otlp::is_selected(&vars))),
            Err(invalid) => self.invalid = Some(invalid),
        }
        self
    }

    /// Pushes metrics to an OTLP collector. [`Telemetry::exposition`] works as well.
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, otlp: crate::otlp::Otlp) -> Self {
        self.otlp = Some(otlp);
        self
    }

    /// Sets the provider up, and starts the push.
    ///
    /// # Errors
    ///
    /// An invalid or unsupported setting, or an exporter that cannot start.
    pub fn build(self) -> Result<Telemetry, TelemetryError> {
        if self.disabled {
            return Ok(Telemetry::disabled());
        }
        if let Some(invalid) = self.invalid {
            return Err(invalid);
        }
        self.bounds.iter().try_for_each(|(prefix, bounds)| check_bounds(prefix, bounds))?;
        let (resource, instance_id) = self.describe(variable)?;
        let views = Arc::new(Views { bounds: self.bounds, ..Views::default() });
        let (reader, view) = (SharedReader::default(), views.clone());
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.clone())
            .with_view(move |instrument: &opentelemetry_sdk::metrics::Instrument| view.view(instrument))
            .build();
        #[cfg(feature = "otlp")]
        let push = self.otlp.map(|otlp| crate::push::Push::start(otlp, reader.clone())).transpose()?;
        let meters = provider.clone();
        let sdk = Sdk {
            provider,
            reader,
            instance_id: Mutex::new(instance_id),
            #[cfg(feature = "otlp")]
            push,
        };
        let version = self.service_version.unwrap_or_default();
        Ok(Telemetry::new(Some(Box::new(move |scope| meters.meter_with_scope(scope))), views, Some(sdk), &version))
    }

    /// The resource, and its instance id if that is a UUID. As OpenTelemetry specifies, the environment has precedence.
    fn describe(&self, vars: impl Fn(&str) -> Option<String>) -> Result<(Resource, Option<Uuid>), TelemetryError> {
        let name = self.service_name.clone().map(|name| KeyValue::new("service.name", name));
        let version = self.service_version.clone().map(|version| KeyValue::new("service.version", version));
        let instance_id = KeyValue::new(INSTANCE_ID, Uuid::new_v4().to_string());
        let declared = [instance_id].into_iter().chain(name).chain(version).chain(self.attributes.iter().cloned());
        let resource = Resource::builder_empty()
            .with_detectors(&[Box::new(SdkProvidedResourceDetector), Box::new(TelemetryResourceDetector)])
            .with_attributes(declared.chain(resource::from_vars(vars)?))
            .build();
        let instance_id = resource.get(&INSTANCE_ID.into()).and_then(|id| id.as_str().parse().ok());
        Ok((resource, instance_id))
    }
}

/// A variable of the environment. Empty ones are unset, as OpenTelemetry specifies.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn check_bounds(prefix: &str, bounds: &[f64]) -> Result<(), TelemetryError> {
    if bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0) && bounds.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let name = format!("bounds of {prefix}");
    Err(TelemetryError::setting(name, format!("{bounds:?}"), "ascending numbers above zero"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_sdk_ignores_invalid_settings() {
        let vars = |name: &str| match name {
            "OTEL_SDK_DISABLED" => Some("True".to_owned()),
            name if name.ends_with("ENDPOINT") || name.ends_with("PROTOCOL") => Some("nonsense".to_owned()),
            _ => None,
        };
        let telemetry = Telemetry::builder().vars(vars).build().expect("disabled");
        assert!(!telemetry.is_enabled() && !telemetry.has_exposition());
        telemetry.meter("mine").u64_counter("counted").build().add(1, &[]);
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn metrics_exporter_none_disables_the_push_only() {
        let none = |name: &str| (name == "OTEL_METRICS_EXPORTER").then(|| "none".to_owned());
        let builder = || Telemetry::builder().otlp(crate::Otlp::http("http://127.0.0.1:9"));
        assert!(builder().vars(|_| None).otlp.is_some());
        assert!(builder().vars(none).otlp.is_none());
        assert!(builder().vars(none).build().expect("telemetry").has_exposition());
    }

    #[test]
    fn environment_has_precedence_in_the_resource() {
        let builder =
            Telemetry::builder().service_name("code").service_version("1").resource(KeyValue::new("a", "code"));
        let of = |attributes: &'static str, name: Option<&'static str>| {
            let vars = |variable: &str| if variable == "OTEL_SERVICE_NAME" { name } else { Some(attributes) };
            let (resource, _) = builder.describe(|variable| vars(variable).map(str::to_owned)).expect("valid");
            ["service.name", "service.version", "a"].map(|key| resource.get(&key.into()).expect(key).to_string())
        };
        assert_eq!(of("", None), ["code", "1", "code"]);
        assert_eq!(of("service.name=unknown_service,a=x%20y", None), ["unknown_service", "1", "x y"]);
        assert_eq!(of("service.name=attribute,service.version=2", Some("variable")), ["variable", "2", "code"]);
    }

    #[test]
    fn instance_id_is_taken_once_if_a_uuid() {
        let with_id = |id: &str| Telemetry::builder().resource(KeyValue::new(INSTANCE_ID, id.to_owned()));
        let id = Uuid::from_u128(7);
        let telemetry = with_id(&id.to_string()).build().expect("telemetry");
        assert_eq!((telemetry.take_instance_id(), telemetry.take_instance_id()), (Some(id), None));
        assert_eq!(with_id("pod-7").build().expect("telemetry").take_instance_id(), None);
        assert!(Telemetry::builder().build().expect("telemetry").take_instance_id().is_some());
    }

    #[test]
    fn bounds_must_ascend_above_zero() {
        for invalid in [vec![1.0, 1.0], vec![2.0, 1.0], vec![0.0], vec![f64::NAN]] {
            assert!(Telemetry::builder().bounds("async_job.", invalid).build().is_err());
        }
    }
}
