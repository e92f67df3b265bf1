//! A trace context and a `tracing` span for the code that runs in them.

use opentelemetry::{
    Context, TraceId,
    context::{FutureExt, WithContext},
    trace::{SpanBuilder, TraceContextExt},
};
use tracing::{Instrument, Span, instrument::Instrumented};

use crate::{log_writer::logs_own_lines, trace::Tracing};

/// A trace context, and a `tracing` span whose fields correlate log lines.
///
/// ```
/// use async_endpoints_telemetry::{Scope, opentelemetry::Context};
///
/// let scope = Scope::new(Context::new(), tracing::error_span!("request", request_id = "r-17"));
/// scope.in_scope(|| tracing::info!("this line has the request's id"));
/// ```
#[derive(Clone, Debug)]
pub struct Scope {
    context: Context,
    span: Span,
}

impl Scope {
    /// A scope of these.
    pub const fn new(context: Context, span: Span) -> Self {
        Self { context, span }
    }

    /// The scope of the code that calls this, for another thread to run in.
    pub fn current() -> Self {
        Self { context: Context::current(), span: Span::current() }
    }

    /// Runs a future in this scope.
    pub fn run<F: Future>(&self, future: F) -> WithContext<Instrumented<F>> {
        future.instrument(self.span.clone()).with_context(self.context.clone())
    }

    /// Runs a function in this scope.
    pub fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        let _attached = self.context.clone().attach();
        self.span.in_scope(run)
    }

    /// Writes lines of the library in this scope. Does not call `write` if no subscriber receives them.
    pub fn log(&self, write: impl FnOnce()) {
        if logs_own_lines() {
            self.in_scope(write);
        }
    }

    /// A scope with the ids of a span that is not recorded, and without fields.
    pub fn unrecorded() -> Self {
        let context = Tracing::ids_only().start(&Context::new(), &[], SpanBuilder::default);
        Self::new(context, Span::none())
    }

    /// The id of the trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.span().span_context().trace_id()
    }

    /// The trace context. Its span is recorded or not.
    pub const fn context(&self) -> &Context {
        &self.context
    }
}
