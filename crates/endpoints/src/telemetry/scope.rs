//! Trace context and correlation fields of a request or an attempt, while its code runs.

use std::fmt::Display;

use async_endpoints_core::{
    job::TraceContext,
    store::{Attempt, WorkerId},
};
use async_endpoints_telemetry::{
    SCOPE_TARGET,
    opentelemetry::{
        Context,
        context::{FutureExt, WithContext},
        trace::TraceContextExt,
    },
    trace,
};
use tracing::{Instrument, Span, field, instrument::Instrumented};

use crate::caller::Caller;

/// A trace context, and a `tracing` span with the fields that correlate log lines.
///
/// The span has level ERROR, so that no level filter removes it. Without an interested subscriber it costs nothing.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    context: Context,
    span: Span,
}

impl Scope {
    /// The scope of a request: span `request`, inside the application's own span.
    pub(crate) fn request(context: Context, caller: &Caller) -> Self {
        let Caller { request_id, user_id, client_address, user_agent } = caller;
        let ids = Ids::of(&context);
        let span = tracing::error_span!(
            target: SCOPE_TARGET,
            "request",
            trace_id = ids.trace_id(),
            span_id = ids.span_id(),
            request_id = request_id.as_deref(),
            user_id = user_id.as_deref(),
            client_address = client_address.as_deref(),
            user_agent = user_agent.as_deref(),
        );
        Self { context, span }
    }

    /// The scope of an attempt: span `job`, which is a root.
    pub(crate) fn attempt(context: Context, attempt: &Attempt, worker: WorkerId, caller: &Caller) -> Self {
        let Caller { request_id, user_id, client_address, user_agent } = caller;
        let ids = Ids::of(&context);
        let span = tracing::error_span!(
            target: SCOPE_TARGET,
            parent: None,
            "job",
            trace_id = ids.trace_id(),
            span_id = ids.span_id(),
            job_id = %attempt.lease.job,
            job_name = attempt.name.as_str(),
            attempt = attempt.attempt,
            worker_id = %worker,
            request_id = request_id.as_deref(),
            user_id = user_id.as_deref(),
            client_address = client_address.as_deref(),
            user_agent = user_agent.as_deref(),
        );
        Self { context, span }
    }

    /// The scope of the code that calls this, for another thread to run in.
    pub(crate) fn current() -> Self {
        Self { context: Context::current(), span: Span::current() }
    }

    /// The scope of a test, without ids.
    pub(crate) fn none() -> Self {
        Self { context: Context::new(), span: Span::none() }
    }

    /// Runs a future in this scope.
    pub(crate) fn run<F: Future>(&self, future: F) -> WithContext<Instrumented<F>> {
        future.instrument(self.span.clone()).with_context(self.context.clone())
    }

    /// Runs a function in this scope.
    pub(crate) fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        let _attached = self.context.clone().attach();
        self.span.in_scope(run)
    }

    /// The trace context. Its span is recorded or not; its ids are valid in both cases.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The `tracing` span with the correlation fields.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }
}

/// Trace id and span id as fields. Formatted only if a subscriber reads them.
struct Ids<'a>(async_endpoints_telemetry::opentelemetry::trace::SpanRef<'a>);

impl<'a> Ids<'a> {
    fn of(context: &'a Context) -> Self {
        Self(context.span())
    }

    fn trace_id(&self) -> field::DisplayValue<impl Display> {
        field::display(self.0.span_context().trace_id())
    }

    fn span_id(&self) -> field::DisplayValue<impl Display> {
        field::display(self.0.span_context().span_id())
    }
}

/// A context in the form that stores keep.
pub(crate) fn stored(context: &Context) -> Option<TraceContext> {
    let traceparent = trace::traceparent(context)?;
    Some(TraceContext { traceparent, tracestate: trace::tracestate(context) })
}

/// A stored context as a remote parent. None if it is malformed.
pub(crate) fn remote(stored: &TraceContext) -> Option<Context> {
    trace::remote_context(&stored.traceparent, stored.tracestate.as_deref())
}
