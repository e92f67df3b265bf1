//! The spans of jobs: `send <job name>` of a submission, `process <job name>` of an attempt.

use std::borrow::Cow;

use async_endpoints_core::{
    JobId, JobName, JobStatus, StoreError,
    job::{AttemptOutcome, TraceContext},
    store::{Attempt, JobLookup, RetryOutcome},
};
use async_endpoints_telemetry::{
    opentelemetry::{
        Context, KeyValue,
        context::{FutureExt, WithContext},
        trace::{SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt},
    },
    trace::Tracing,
};

use super::{
    scope::{self, RequestId, with_request_id},
    semconv as s,
    series::{OUTCOMES, WORKER_LOST},
};
use crate::{caller::Caller, options::Propagation};

const SEND: &str = "send";
const PROCESS: &str = "process";

/// Starts the spans of jobs.
pub(crate) struct Spans {
    pub(super) tracing: Tracing,
    propagation: Propagation,
}

impl Spans {
    pub(crate) const fn new(tracing: Tracing, propagation: Propagation) -> Self {
        Self { tracing, propagation }
    }

    /// Starts the span of a submission, below the current one.
    pub(crate) fn send(&self, name: Option<&JobName>) -> Sending {
        let describe = || job_span(SEND, SpanKind::Producer, name);
        Sending(Context::map_current(|parent| self.tracing.start(parent, &[], describe)))
    }

    /// Starts the span of an attempt. It is linked to the submission or below it, and linked to the attempt before.
    pub(crate) fn process(&self, attempt: &Attempt, caller: &Caller) -> Context {
        let submission = |when| attempt.trace.as_ref().filter(|_| self.propagation == when);
        let linked =
            submission(Propagation::Link).map(|trace| scope::span_of(trace.traceparent, trace.tracestate.as_deref()));
        let previous = attempt.previous_span.map(|span| scope::span_of(span, None));
        let links: Vec<SpanContext> = linked.into_iter().chain(previous).collect();
        let parent = submission(Propagation::Child).map(scope::remote).unwrap_or_default();
        let describe = || job_span(PROCESS, SpanKind::Consumer, Some(&attempt.name));
        let context = with_request_id(self.tracing.start(&parent, &links, describe), caller, &self.tracing);
        if context.span().is_recording() {
            context.span().set_attributes([
                KeyValue::new(s::MESSAGE_ID, attempt.lease.job.to_string()),
                KeyValue::new(s::ATTEMPT, i64::from(attempt.attempt)),
                KeyValue::new(s::MAX_ATTEMPTS, i64::from(attempt.max_retries) + 1),
                KeyValue::new(s::QUEUE_TIME, attempt.started_at.since(attempt.runnable_since).as_secs_f64()),
            ]);
            context.span().set_attributes(conversation(&context));
        }
        context
    }
}

/// A span with the attributes that samplers read.
fn job_span(operation: &'static str, kind: SpanKind, destination: Option<&JobName>) -> SpanBuilder {
    let name = destination.map_or_else(|| operation.into(), |name| format!("{operation} {name}").into());
    let attributes = [
        KeyValue::new(s::MESSAGING_SYSTEM, s::SYSTEM),
        KeyValue::new(s::MESSAGING_OPERATION, operation),
        KeyValue::new(s::MESSAGING_OPERATION_TYPE, operation),
    ];
    let destination = destination.map(|name| KeyValue::new(s::DESTINATION, name.to_string()));
    let builder: SpanBuilder = SpanBuilder { name, ..SpanBuilder::default() };
    builder.with_kind(kind).with_attributes(attributes.into_iter().chain(destination))
}

/// The span of a submission. It ends when this is dropped, if not before.
pub(crate) struct Sending(Context);

impl Sending {
    /// The context that the job stores.
    pub(crate) fn stored(&self) -> Option<TraceContext> {
        scope::stored(&self.0)
    }

    /// Runs the store call in the span's context.
    pub(crate) fn run<F: Future>(&self, call: F) -> WithContext<F> {
        call.with_context(self.0.clone())
    }

    /// Ends the span with the result of an operator's retry.
    pub(crate) fn retried(&self, answer: Result<&RetryOutcome, &StoreError>) {
        match answer {
            Ok(RetryOutcome::Created(job)) => {
                let span = self.0.span();
                if span.is_recording() {
                    span.update_name(format!("{SEND} {}", job.name));
                    span.set_attribute(KeyValue::new(s::DESTINATION, job.name.to_string()));
                }
                self.accepted(job.id, false);
            }
            Ok(RetryOutcome::Existing(JobLookup::Found(job))) => self.accepted(job.id, true),
            // The answer to an operator's mistake is no error of the submission.
            Ok(_) => self.0.span().end(),
            Err(error) => self.failed(error_type(error)),
        }
    }

    /// Ends the span: the job is stored. A duplicate was stored by an earlier submission.
    pub(crate) fn accepted(&self, id: JobId, duplicate: bool) {
        let span = self.0.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(s::MESSAGE_ID, id.to_string()));
            span.set_attribute(KeyValue::new(s::DUPLICATE, duplicate));
            span.set_attributes(conversation(&self.0));
            span.end();
        }
    }

    /// Ends the span: the job was not accepted.
    pub(crate) fn failed(&self, code: &'static str) {
        let span = self.0.span();
        if span.is_recording() {
            fail(&self.0, code);
            span.set_attributes(conversation(&self.0));
            span.end();
        }
    }
}

/// The error type of a failed store call.
pub(super) const fn error_type(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Unreadable(_) => "unreadable",
        StoreError::Corrupt(_) => "corrupt",
        StoreError::Backend { .. } => "backend",
    }
}

/// Ends the span of an attempt whose settlement the store accepted. `code` is empty without an error.
pub(super) fn processed(context: &Context, outcome: AttemptOutcome, code: &str, status: JobStatus) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    span.set_attribute(KeyValue::new(s::OUTCOME, OUTCOMES[outcome as usize]));
    span.set_attribute(KeyValue::new(s::STATUS, status.as_str()));
    if matches!(outcome, AttemptOutcome::Retried | AttemptOutcome::Failed) {
        fail(context, code.to_owned());
    }
    span.end();
}

/// Ends the span of an attempt without an accepted settlement: its lease is lost. Does nothing after [`processed`].
pub(crate) fn lost(context: &Context) {
    let span = context.span();
    if span.is_recording() {
        span.set_attribute(KeyValue::new(s::OUTCOME, OUTCOMES[AttemptOutcome::Lost as usize]));
        fail(context, WORKER_LOST);
        span.end();
    }
}

/// Marks a span as failed.
pub(super) fn fail(context: &Context, error_type: impl Into<Cow<'static, str>>) {
    let error_type = error_type.into();
    context.span().set_status(Status::error(error_type.clone()));
    context.span().set_attribute(KeyValue::new(s::ERROR_TYPE, error_type));
}

/// The id of the request that a job comes from.
pub(super) fn conversation(context: &Context) -> Option<KeyValue> {
    context.get::<RequestId>().map(|id| KeyValue::new(s::CONVERSATION_ID, id.0.clone()))
}
