//! Credentials in exported log records.

use std::time::Duration;

use opentelemetry::{
    InstrumentationScope,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord, SdkLogger, SdkLoggerProvider},
};

use super::redact::{REDACTED, is_secret};

/// Replaces the values of credentials. Add it to a provider before other processors.
#[derive(Debug)]
pub(crate) struct RedactRecords {
    /// Makes empty records: attributes cannot be changed in place.
    records: SdkLogger,
}

impl RedactRecords {
    pub(crate) fn new() -> Self {
        Self { records: SdkLoggerProvider::builder().build().logger("") }
    }

    fn redacted(&self, record: &SdkLogRecord) -> SdkLogRecord {
        let mut redacted = self.records.create_log_record();
        record.event_name().into_iter().for_each(|name| redacted.set_event_name(name));
        record.target().into_iter().for_each(|target| redacted.set_target(target.clone()));
        record.timestamp().into_iter().for_each(|time| redacted.set_timestamp(time));
        record.observed_timestamp().into_iter().for_each(|time| redacted.set_observed_timestamp(time));
        record.severity_text().into_iter().for_each(|text| redacted.set_severity_text(text));
        record.severity_number().into_iter().for_each(|number| redacted.set_severity_number(number));
        record.body().into_iter().for_each(|body| redacted.set_body(body.clone()));
        if let Some(trace) = record.trace_context() {
            redacted.set_trace_context(trace.trace_id, trace.span_id, trace.trace_flags);
        }
        redacted.add_attributes(record.attributes_iter().map(|(key, value)| {
            let is_secret = is_secret(key.as_str());
            (key.clone(), if is_secret { AnyValue::from(REDACTED) } else { value.clone() })
        }));
        redacted
    }
}

impl LogProcessor for RedactRecords {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        if record.attributes_iter().any(|(key, _)| is_secret(key.as_str())) {
            *record = self.redacted(record);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::{
        SpanId, TraceFlags, TraceId,
        logs::{AnyValue, Severity},
    };

    use super::*;

    /// Keeps records as the next processor gets them.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SdkLogRecord>>>);

    impl LogProcessor for Kept {
        fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
            self.0.lock().unwrap().push(record.clone());
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn only_values_of_credentials_change() {
        let kept = Kept::default();
        let provider = SdkLoggerProvider::builder()
            .with_log_processor(RedactRecords::new())
            .with_log_processor(kept.clone())
            .build();
        let logger = provider.logger("test");
        let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
        for password in ["password", "passwords"] {
            let mut record = logger.create_log_record();
            record.set_event_name("event");
            record.set_target("target");
            record.set_timestamp(std::time::UNIX_EPOCH);
            record.set_severity_text("INFO");
            record.set_severity_number(Severity::Info);
            record.set_body(AnyValue::from("text"));
            record.set_trace_context(trace, span, Some(TraceFlags::SAMPLED));
            record.add_attributes([(password, "canary"), ("user", "u")]);
            logger.emit(record);
        }
        let kept = kept.0.lock().unwrap().clone();
        let text = |index: usize| format!("{:?}", kept[index]);
        assert!(text(1).contains("canary"), "{}", text(1));
        let record = &kept[0];
        assert!(!text(0).contains("canary") && text(0).contains(REDACTED), "{}", text(0));
        assert_eq!((record.event_name(), record.target().map(AsRef::as_ref)), (Some("event"), Some("target")));
        assert_eq!((record.timestamp(), record.severity_text()), (Some(std::time::UNIX_EPOCH), Some("INFO")));
        assert_eq!((record.severity_number(), record.body()), (Some(Severity::Info), Some(&AnyValue::from("text"))));
        let context = record.trace_context().expect("a context");
        assert_eq!((context.trace_id, context.span_id, context.trace_flags), (trace, span, Some(TraceFlags::SAMPLED)));
        assert!(record.observed_timestamp().is_some());
        assert_eq!(record.attributes_iter().count(), 2);
    }
}
