//! The metric reader.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Duration,
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{InstrumentKind, ManualReader, Pipeline, Temporality, data::ResourceMetrics, reader::MetricReader},
};

/// The one metric reader. The exposition and the push share it, so that the SDK keeps each measurement once.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }
    /// Runs callbacks of the application. After a panic of one, the SDK's lock is poisoned, and every collection fails.
    fn collect(&self, into: &mut ResourceMetrics) -> OTelSdkResult {
        let collected = catch_unwind(AssertUnwindSafe(|| self.0.collect(into)));
        collected.unwrap_or_else(|_| Err(OTelSdkError::InternalFailure("a metric callback panicked".to_owned())))
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
