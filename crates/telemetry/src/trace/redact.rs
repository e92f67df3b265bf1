//! Credentials in exported spans.

use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};

use crate::logs::redact::{REDACTED, is_secret};

/// Replaces the values of credentials before another processor. Fields of an application's `tracing` spans become
/// attributes.
#[derive(Debug)]
pub(crate) struct RedactSpans<P>(pub(crate) P);

impl<P: SpanProcessor> SpanProcessor for RedactSpans<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }
    fn on_end(&self, mut span: SpanData) {
        redact(&mut span.attributes);
        span.events.events.iter_mut().for_each(|event| redact(&mut event.attributes));
        self.0.on_end(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn redact(attributes: &mut [KeyValue]) {
    for attribute in attributes.iter_mut().filter(|attribute| is_secret(attribute.key.as_str())) {
        attribute.value = REDACTED.into();
    }
}
