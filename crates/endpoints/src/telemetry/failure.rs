//! A failed attempt as one line in the log, and as one that is kept with the job.
//!
//! The kept line is stored with the settlement. It does not say what becomes of the job: the store decides that, and cancels a
//! job whose cancellation was requested.

use std::time::Duration;

use async_endpoints_core::{
    job::{ErrorRecord, LogLine},
    store::Outcome,
};
use async_endpoints_telemetry::{Scope, log_safely, opentelemetry::trace::TraceContextExt};
use serde_json::Value;

use crate::{
    error::Builtin,
    log_buffer::{OWN_TARGET, own_line},
};

/// An attempt that failed, and after which the job is retried or fails.
pub(crate) struct FailedAttempt<'a> {
    error: &'a ErrorRecord,
    /// The delay before the retry. None if the job fails.
    delay: Option<Duration>,
    ran: Duration,
}

impl<'a> FailedAttempt<'a> {
    /// None if the attempt did not fail.
    pub(crate) fn of(outcome: &'a Outcome, ran: Duration) -> Option<Self> {
        match outcome {
            Outcome::Retry { delay, error } => Some(Self { error, delay: Some(*delay), ran }),
            Outcome::Failed { error } => Some(Self { error, delay: None, ran }),
            Outcome::Completed { .. } | Outcome::Canceled { .. } | Outcome::Released => None,
        }
    }

    /// Writes the line to the log.
    pub(crate) fn log(&self) {
        macro_rules! write {
            ($level:ident, $event:literal, $message:literal $(, $delay:ident)?) => {
                log_safely(|| {
                    tracing::$level!(
                        target: OWN_TARGET,
                        event = $event,
                        code = %self.error.code,
                        detail = self.detail(),
                        error = self.cause(),
                        location = self.location(),
                        processing_time_ms = milliseconds(self.ran),
                        $(delay_ms = milliseconds($delay),)?
                        $message,
                    );
                })
            };
        }
        match self.delay {
            Some(delay) => write!(warn, "job.retry_scheduled", "the attempt failed and the job is retried", delay),
            None => write!(error, "job.failed", "the job failed"),
        }
    }

    /// The line that is kept with the job. It has the ids of the attempt's span, so that the job's log leads to the trace.
    pub(crate) fn line(&self, scope: &Scope) -> LogLine {
        let span = scope.context().span();
        let span = span.span_context();
        let level = if self.delay.is_some() { "WARN" } else { "ERROR" };
        let fields = [
            ("code", Some(Value::from(&*self.error.code))),
            ("detail", self.detail().map(Value::from)),
            ("error", self.cause().map(Value::from)),
            ("location", self.location().map(Value::from)),
            ("processing_time_ms", Some(Value::from(milliseconds(self.ran)))),
            ("trace_id", Some(Value::from(span.trace_id().to_string()))),
            ("span_id", Some(Value::from(span.span_id().to_string()))),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        LogLine { fields, ..own_line(level, "the attempt failed".to_owned()) }
    }

    /// The detail, except that of an unreadable request: it can quote the body.
    fn detail(&self) -> Option<&str> {
        self.error.detail.as_deref().filter(|_| self.error.code != Builtin::PayloadUnreadable.code())
    }

    /// The error chain in one text; of a panic its message alone.
    fn cause(&self) -> Option<String> {
        let sources = match self.is_panic() {
            true => self.error.sources.get(..1)?,
            false => &self.error.sources,
        };
        (!sources.is_empty()).then(|| sources.join(": "))
    }

    /// Where a panic began.
    fn location(&self) -> Option<&str> {
        self.error.sources.get(1).filter(|_| self.is_panic()).map(String::as_str)
    }

    fn is_panic(&self) -> bool {
        self.error.code == Builtin::Panic.code()
    }
}

/// Milliseconds with a precision of one microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use async_endpoints_telemetry::opentelemetry::{
        Context, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, TraceState},
    };
    use tracing::Span;

    use super::*;

    fn failed(builtin: Builtin, sources: &[&str]) -> Outcome {
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        Outcome::Failed { error: ErrorRecord { sources, ..builtin.record(Some("detail".to_owned())) } }
    }

    fn fields(outcome: &Outcome) -> Vec<(String, Value)> {
        let ids = (TraceId::from(0xab), SpanId::from(0xcd));
        let span = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, false, TraceState::NONE);
        let scope = Scope::new(Context::new().with_remote_span_context(span), Span::none());
        let line = FailedAttempt::of(outcome, Duration::from_micros(1_500)).expect("failed").line(&scope);
        line.fields.into_iter().collect()
    }

    #[test]
    fn kept_line_has_the_error_chain_and_the_ids() {
        let fields = fields(&failed(Builtin::HandlerError, &["cannot save", "disk full"]));
        let expected = [
            ("code", Value::from("HANDLER_ERROR")),
            ("detail", "detail".into()),
            ("error", "cannot save: disk full".into()),
            ("processing_time_ms", 1.5.into()),
            ("span_id", "00000000000000cd".into()),
            ("trace_id", "000000000000000000000000000000ab".into()),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn panic_has_message_and_location() {
        let fields = fields(&failed(Builtin::Panic, &["no paper", "src/main.rs:7:9"]));
        assert!(fields.contains(&("error".to_owned(), "no paper".into())));
        assert!(fields.contains(&("location".to_owned(), "src/main.rs:7:9".into())));
    }

    #[test]
    fn unreadable_request_is_not_quoted() {
        let fields = fields(&failed(Builtin::PayloadUnreadable, &[]));
        assert!(fields.iter().all(|(name, _)| name != "detail"));
    }
}
