//! Starts spans.

use std::{fmt, sync::Arc};

use opentelemetry::{
    Context, InstrumentationScope, TraceFlags, TraceId,
    global::{BoxedTracer, ObjectSafeTracer},
    trace::{SpanBuilder, SpanContext, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::views::SCOPE;

/// Semantic conventions of the spans' names and attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Starts spans. A span that is not recorded has valid ids as well: for log lines, exemplars and stored contexts.
///
/// Cheap to clone; made by [`Telemetry::tracing`](crate::Telemetry::tracing).
#[derive(Clone, Default)]
pub struct Tracing(Option<Arc<BoxedTracer>>);

impl Tracing {
    /// Starts spans with the library's tracer of a provider.
    pub fn new<P>(provider: &P) -> Self
    where
        P: TracerProvider,
        P::Tracer: ObjectSafeTracer + Send + Sync + 'static,
    {
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
        let tracer = provider.tracer_with_scope(scope.with_schema_url(SCHEMA_URL).build());
        Self(Some(Arc::new(BoxedTracer::new(Box::new(tracer)))))
    }

    /// Records no spans.
    pub const fn ids_only() -> Self {
        Self(None)
    }

    /// Starts a span below `parent` and returns its context. Without a valid span in `parent`, the span begins a trace.
    ///
    /// `describe` is not called if no span is ever recorded. What needs an allocation and no sampler reads is better set
    /// afterwards, if the span [is recording](opentelemetry::trace::SpanRef::is_recording).
    ///
    /// A span that is not recorded inherits its parent's flags. It is marked as not sampled if a sampler decided so.
    pub fn start(&self, parent: &Context, describe: impl FnOnce() -> SpanBuilder) -> Context {
        let Some(tracer) = &self.0 else {
            return unrecorded(parent, TraceId::INVALID, TraceFlags::new(u8::MAX));
        };
        let context = parent.with_span(tracer.build_with_context(describe(), parent));
        if context.span().is_recording() {
            return context;
        }
        let trace_id = context.span().span_context().trace_id();
        unrecorded(parent, trace_id, !TraceFlags::SAMPLED)
    }
}

/// The context of a span without a record: in the parent's trace, else in a new one with this id or a random one.
fn unrecorded(parent: &Context, trace_id: TraceId, kept_flags: TraceFlags) -> Context {
    let span = parent.span();
    let above = span.span_context();
    let trace_id = [above.trace_id(), trace_id].into_iter().find(|id| *id != TraceId::INVALID);
    let random = RandomIdGenerator::default();
    let trace_id = trace_id.unwrap_or_else(|| random.new_trace_id());
    let flags = above.trace_flags() & kept_flags;
    let own = SpanContext::new(trace_id, random.new_span_id(), flags, false, above.trace_state().clone());
    parent.with_remote_span_context(own)
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing").field("records", &self.0.is_some()).finish()
    }
}
