//! The spans of store calls.
//!
//! A call inside a recorded span has one below it. In the background, calls that start, settle or recover attempts have one
//! with links to them, if an attempt is sampled. Polling has none.

use std::time::SystemTime;

use async_endpoints_core::store::{Result, StoreError, StoreOperation};
use async_endpoints_telemetry::{
    opentelemetry::{
        Context, KeyValue,
        context::FutureExt,
        trace::{SpanBuilder, SpanContext, SpanKind, TraceContextExt},
    },
    trace::Tracing,
};

use super::{
    semconv as s,
    spans::{error_type, fail},
};

/// Starts the spans of store calls.
pub(super) struct Calls {
    pub(super) tracing: Tracing,
    /// The kind of the store.
    pub(super) system: &'static str,
}

/// The span of a call, if it has one. It ends when this is dropped, if not before.
#[derive(Default)]
pub(super) struct CallSpan(Option<Context>);

impl Calls {
    /// Starts the span of a call below the current span.
    pub(super) fn inside(&self, operation: StoreOperation) -> CallSpan {
        let start = |parent: &Context| {
            let is_recorded = parent.span().is_recording();
            is_recorded.then(|| self.tracing.start(parent, &[], || self.describe(operation)))
        };
        CallSpan(Context::map_current(start))
    }

    /// Starts the span of a call for several attempts. `kind` is the messaging operation.
    pub(super) fn batch(
        &self,
        operation: StoreOperation,
        kind: &'static str,
        began: SystemTime,
        attempts: impl FnOnce() -> Vec<SpanContext>,
    ) -> CallSpan {
        if !self.tracing.records() {
            return CallSpan(None);
        }
        let (sampled, others): (Vec<_>, Vec<_>) = attempts().into_iter().partition(SpanContext::is_sampled);
        if sampled.is_empty() {
            return CallSpan(None);
        }
        let describe = || self.describe(operation).with_start_time(began);
        let context = self.tracing.start(&Context::new(), &sampled, describe);
        context.span().set_attributes([
            KeyValue::new(s::MESSAGING_SYSTEM, s::SYSTEM),
            KeyValue::new(s::MESSAGING_OPERATION, operation.as_str()),
            KeyValue::new(s::MESSAGING_OPERATION_TYPE, kind),
            KeyValue::new(s::MESSAGE_COUNT, (sampled.len() + others.len()) as i64),
        ]);
        CallSpan(Some(context))
    }

    fn describe(&self, operation: StoreOperation) -> SpanBuilder {
        SpanBuilder::from_name(operation.as_str()).with_kind(SpanKind::Client).with_attributes([
            KeyValue::new(s::DB_SYSTEM, self.system),
            KeyValue::new(s::DB_OPERATION, operation.as_str()),
        ])
    }
}

impl CallSpan {
    /// Runs the call in the span's context.
    pub(super) async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(context) => call.with_context(context.clone()).await,
            None => call.await,
        }
    }

    /// Ends the span with the call's answer.
    pub(super) fn end<T>(&self, answer: &Result<T>) {
        match answer {
            Ok(_) => self.close(None),
            Err(error) => self.close(Some(error_type(error))),
        }
    }

    /// Ends the span of a call that was dropped because it did not answer in time.
    pub(super) fn timed_out(&self) {
        self.close(Some(error_type(&StoreError::Unavailable(String::new()))));
    }

    fn close(&self, error_type: Option<&'static str>) {
        if let Some(context) = &self.0 {
            if let Some(error_type) = error_type {
                fail(context, error_type);
            }
            context.span().end();
        }
    }
}
