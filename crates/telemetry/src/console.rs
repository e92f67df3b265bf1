//! Exporters that print to stdout, for development. They print on the SDK's threads, so that a blocked or closed stdout
//! delays and fails nothing else.

use std::time::Duration;

use opentelemetry_sdk::{logs::BatchLogProcessor, trace::BatchSpanProcessor};

use crate::env::Batch;

/// Settings of the processors. A developer waits for the output.
const PRINTED: Batch = Batch { delay: Duration::from_millis(500), ..Batch::SPANS };

pub(crate) fn spans() -> BatchSpanProcessor {
    let printer = opentelemetry_stdout::SpanExporter::default();
    BatchSpanProcessor::builder(printer).with_batch_config(PRINTED.of_spans()).build()
}

pub(crate) fn log_records() -> BatchLogProcessor {
    let printer = opentelemetry_stdout::LogExporter::default();
    BatchLogProcessor::builder(printer).with_batch_config(PRINTED.of_log_records()).build()
}
