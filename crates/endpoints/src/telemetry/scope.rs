//! The scopes of requests and attempts: trace context and correlation fields of log lines.

use std::sync::Arc;

use async_endpoints_core::{
    JobId, JobName,
    job::{TraceContext, TraceParent},
    store::{Attempt, WorkerId},
};
use async_endpoints_telemetry::{
    SCOPE_TARGET, Scope, is_logging, log_safely, logs_own_lines,
    opentelemetry::{
        Context,
        context::{FutureExt, WithContext},
        trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId},
    },
    trace::{Tracing, context_of, remote_span, tracestate},
};
use tracing::{Span, field};

use crate::caller::Caller;

/// The id of the request that a context belongs to. Part of the context, so that jobs submitted by the request's code or by
/// a job's handler have it too.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Adds the id of a request to a context, if spans may be recorded: only they have it.
pub(crate) fn with_request_id(context: Context, caller: &Caller, tracing: &Tracing) -> Context {
    match caller.request_id.as_deref().filter(|_| tracing.records()) {
        Some(id) => context.with_value(RequestId(id.into())),
        None => context,
    }
}

/// The scope of a request, inside the application's own span.
pub(crate) fn request(context: Context, caller: &Caller) -> Scope {
    let Caller { request_id, user_id, client_address, user_agent } = caller;
    let own = context.span().span_context().clone();
    // Level ERROR, so that no level filter removes the span.
    let span = safely(|| {
        tracing::error_span!(
            target: SCOPE_TARGET,
            "request",
            trace_id = %own.trace_id(),
            span_id = %own.span_id(),
            request_id = request_id.as_deref(),
            user_id = user_id.as_deref(),
            client_address = client_address.as_deref(),
            user_agent = user_agent.as_deref(),
        )
    });
    Scope::new(context, span)
}

/// The scope of an attempt.
pub(crate) fn attempt(context: Context, attempt: &Attempt, worker: WorkerId, caller: &Caller) -> Scope {
    let Caller { request_id, user_id, client_address, user_agent } = caller;
    let own = context.span().span_context().clone();
    let span = safely(|| {
        tracing::error_span!(
            target: SCOPE_TARGET,
            parent: None,
            "job",
            trace_id = %own.trace_id(),
            span_id = %own.span_id(),
            job_id = %attempt.lease.job,
            job_name = attempt.name.as_str(),
            attempt = attempt.attempt,
            worker_id = %worker,
            request_id = request_id.as_deref(),
            user_id = user_id.as_deref(),
            client_address = client_address.as_deref(),
            user_agent = user_agent.as_deref(),
        )
    });
    Scope::new(context, span)
}

/// Writes a line about a job that this process runs no attempt of: in the trace of its submission, inside the scope of the
/// current request. Does not call `write` if no subscriber receives the library's lines.
pub(crate) fn log_job(
    id: JobId,
    name: &JobName,
    attempt: Option<u32>,
    trace: Option<&TraceContext>,
    write: impl FnOnce(),
) {
    if !logs_own_lines() {
        return;
    }
    let context = trace.map(remote).unwrap_or_else(Context::current);
    let own = context.span().span_context().clone();
    let span = safely(|| {
        tracing::error_span!(
            target: SCOPE_TARGET,
            "job",
            trace_id = own.is_valid().then(|| field::display(own.trace_id())),
            job_id = %id,
            job_name = name.as_str(),
            attempt,
        )
    });
    Scope::new(context, span).in_scope(write);
}

/// Without the span if there is no subscriber, or if it panics.
fn safely(make: impl FnOnce() -> Span) -> Span {
    let mut span = Span::none();
    if is_logging() {
        log_safely(|| span = make());
    }
    span
}

/// Runs a future in a trace context, else in the current one.
pub(crate) fn run_in<F: Future>(context: Option<Context>, future: F) -> WithContext<F> {
    future.with_context(context.unwrap_or_else(Context::current))
}

/// The trace id of the code that calls this. None outside of requests and attempts.
pub(crate) fn current_trace_id() -> Option<String> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| span.trace_id().to_string())
    })
}

/// A context in the form that stores keep.
pub(crate) fn stored(context: &Context) -> Option<TraceContext> {
    Some(TraceContext { traceparent: traceparent(context)?, tracestate: tracestate(context) })
}

/// The ids of a context's span. None without a valid span.
pub(crate) fn traceparent(context: &Context) -> Option<TraceParent> {
    let span = context.span();
    let span = span.span_context();
    let (trace_id, span_id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
    span.is_valid().then(|| TraceParent { trace_id, span_id, flags: span.trace_flags().to_u8() })
}

/// A stored context as a remote parent.
pub(crate) fn remote(stored: &TraceContext) -> Context {
    let tracestate = stored.tracestate.as_deref();
    context_of(span_of(stored.traceparent, tracestate), tracestate)
}

/// A stored span, for a link.
pub(crate) fn span_of(stored: TraceParent, tracestate: Option<&str>) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(stored.trace_id), SpanId::from_bytes(stored.span_id));
    remote_span(trace, span, TraceFlags::new(stored.flags), tracestate)
}
