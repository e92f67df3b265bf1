//! In place of `sdk.rs`, without the feature `sdk`: nothing is measured.
#![allow(clippy::unused_self, reason = "the same interface as with the SDK")]

use opentelemetry::{
    InstrumentationScope,
    metrics::{Meter, MeterProvider, noop::NoopMeterProvider},
};
use uuid::Uuid;

use crate::instrument::Instrument;

/// No providers.
#[derive(Default)]
pub(crate) struct Sdk;

impl Sdk {
    pub(crate) fn register(&self, _meter: &Meter, _version: &str) {}

    pub(crate) fn meter(&self, scope: InstrumentationScope) -> Meter {
        NoopMeterProvider::new().meter_with_scope(scope)
    }

    pub(crate) fn declare(&self, _catalogue: &'static [Instrument]) {}

    pub(crate) fn bounds(&self, instrument: &Instrument) -> &[f64] {
        instrument.bounds
    }

    pub(crate) fn is_enabled(&self) -> bool {
        false
    }

    pub(crate) fn has_exposition(&self) -> bool {
        false
    }

    pub(crate) fn has_other_readers(&self) -> bool {
        false
    }

    pub(crate) fn take_instance_id(&self) -> Option<Uuid> {
        None
    }

    pub(crate) fn resource(&self, _key: &'static str) -> Option<String> {
        None
    }
}
