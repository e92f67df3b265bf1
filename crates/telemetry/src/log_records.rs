//! Events of `tracing` as log records for export.

use std::{collections::HashSet, sync::Mutex, time::SystemTime};

use opentelemetry::{
    Key,
    logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity},
};
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::Visit,
    span::{Attributes, Id, Record},
};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::{
    log_writer::SCOPE_TARGET,
    log_writer::log_safely,
    logs::{Fields, MESSAGE, Value},
    sync::lock,
};

/// Fields of the spans with [`SCOPE_TARGET`] that become attributes. Trace and span id are in each log record anyway.
const CORRELATION: [&str; 5] = ["job_id", "job_name", "attempt", "worker_id", "request_id"];

/// The field with the name of an event that programs recognize, such as `job.completed`.
const EVENT: &str = "event";

/// The field with an error and its sources, and its name in a log record by OpenTelemetry's conventions.
const ERROR: &str = "error";
const EXCEPTION: &str = "exception.message";

/// Maximum number of different event names. Records of further ones have none.
const MAX_EVENTS: usize = 256;

/// Emits a log record for each event, in the current trace context.
///
/// The field `error` is the attribute `exception.message`. Unlike OpenTelemetry's own bridge it replaces the values of credentials, and has no source position for the event's name.
pub(crate) struct LogRecords {
    logger: SdkLogger,
    /// The SDK takes static names only.
    events: Mutex<HashSet<&'static str>>,
}

impl LogRecords {
    pub(crate) fn new(loggers: &SdkLoggerProvider) -> Self {
        Self { logger: loggers.logger(""), events: Mutex::default() }
    }

    fn event_name(&self, name: &str) -> Option<&'static str> {
        let mut known = lock(&self.events);
        if let Some(found) = known.get(name) {
            return Some(found);
        }
        (known.len() < MAX_EVENTS).then(|| {
            let name: &'static str = String::leak(name.to_owned());
            known.insert(name);
            name
        })
    }

    fn record<S>(&self, event: &Event<'_>, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut record = self.logger.create_log_record();
        let normalized = event.normalized_metadata();
        let target = normalized.as_ref().map_or(event.metadata().target(), Metadata::target).to_owned();
        let level = *event.metadata().level();
        record.set_timestamp(SystemTime::now());
        record.set_target(target);
        record.set_severity_number(severity(level));
        record.set_severity_text(level.as_str());
        let mut attributes: Vec<(Key, AnyValue)> = Vec::new();
        event.record(&mut Fields(|name: &'static str, value: Value<'_>| match (name, any(value)) {
            (MESSAGE, body) => record.set_body(body),
            // The source position that the `log` crate adds.
            (name, _) if name.starts_with("log.") => {}
            (ERROR, value) => attributes.push((Key::new(EXCEPTION), value)),
            (name, value) => {
                if let (EVENT, AnyValue::String(event)) = (name, &value) {
                    self.event_name(event.as_str()).into_iter().for_each(|name| record.set_event_name(name));
                }
                attributes.push((Key::new(name), value));
            }
        }));
        for span in ctx.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let fields =
                extensions.get::<Correlation>().into_iter().flat_map(|Correlation(fields)| fields.iter().rev());
            // The event's own fields and the innermost, latest ones count: a key is unique in a record.
            for (key, value) in fields {
                if attributes.iter().all(|(taken, _)| taken != key) {
                    attributes.push((key.clone(), value.clone()));
                }
            }
        }
        record.add_attributes(attributes);
        self.logger.emit(record);
    }
}

/// Correlation fields in the extensions of a span.
struct Correlation(Vec<(Key, AnyValue)>);

impl<S> Layer<S> for LogRecords
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id).filter(|span| span.metadata().target() == SCOPE_TARGET) else { return };
        let fields = correlation(|visit| attributes.record(visit));
        span.extensions_mut().insert(Correlation(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id).filter(|span| span.metadata().target() == SCOPE_TARGET) else { return };
        let fields = correlation(|visit| values.record(visit));
        if let Some(Correlation(all)) = span.extensions_mut().get_mut::<Correlation>() {
            all.extend(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        // The text of a value is made by the application's code, which may panic.
        log_safely(|| self.record(event, &ctx));
    }
}

fn correlation(record: impl FnOnce(&mut dyn Visit)) -> Vec<(Key, AnyValue)> {
    let mut fields = Vec::new();
    record(&mut Fields(|name: &'static str, value: Value<'_>| {
        if CORRELATION.contains(&name) {
            fields.push((Key::new(name), any(value)));
        }
    }));
    fields
}

fn any(value: Value<'_>) -> AnyValue {
    match value {
        Value::Bool(value) => value.into(),
        Value::Signed(value) => i64::try_from(value).map_or_else(|_| value.to_string().into(), AnyValue::from),
        Value::Unsigned(value) => i64::try_from(value).map_or_else(|_| value.to_string().into(), AnyValue::from),
        Value::Float(value) => value.into(),
        Value::Text(text) => text.to_string().into(),
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry::InstrumentationScope;
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        logs::{LogProcessor, SdkLogRecord},
    };
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SdkLogRecord>>>);

    impl LogProcessor for Kept {
        fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
            lock(&self.0).push(record.clone());
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
    }

    fn records(log: impl FnOnce()) -> Vec<SdkLogRecord> {
        let kept = Kept::default();
        let loggers = SdkLoggerProvider::builder().with_log_processor(kept.clone()).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(LogRecords::new(&loggers)), log);
        std::mem::take(&mut *lock(&kept.0))
    }

    fn attributes(record: &SdkLogRecord) -> Vec<(&str, String)> {
        let text = |value: &AnyValue| match value {
            AnyValue::String(text) => text.to_string(),
            other => format!("{other:?}"),
        };
        record.attributes_iter().map(|(key, value)| (key.as_str(), text(value))).collect()
    }

    #[test]
    fn correlation_fields_come_once() {
        let records = records(|| {
            let request = tracing::error_span!(target: SCOPE_TARGET, "request", request_id = "outer");
            let _request = request.entered();
            let job = tracing::error_span!(target: SCOPE_TARGET, "job", job_id = "j", attempt = 2, request_id = "r");
            let _job = job.entered();
            let _own = tracing::error_span!("own", page = 7).entered();
            tracing::warn!(
                event = "job.failed",
                job_id = "own",
                password = "canary",
                error = "cold",
                "it {}",
                "failed"
            );
        });
        let [record] = &records[..] else { panic!("{records:?}") };
        let expected =
            [("event", "job.failed"), ("job_id", "own"), ("password", "[redacted]"), ("exception.message", "cold")];
        let correlated = [("request_id", "r"), ("attempt", "Int(2)")];
        let expected: Vec<_> =
            expected.into_iter().chain(correlated).map(|(key, text)| (key, text.to_owned())).collect();
        assert_eq!(attributes(record), expected);
        assert_eq!(record.body(), Some(&AnyValue::from("it failed")));
        let named = (record.event_name(), record.severity_text(), record.timestamp().is_some());
        assert_eq!(named, (Some("job.failed"), Some("WARN"), true));
    }

    #[test]
    fn number_of_event_names_is_limited() {
        let records = records(|| (0..300).for_each(|n| tracing::info!(event = %n, "counted")));
        assert_eq!(records.iter().filter(|record| record.event_name().is_some()).count(), MAX_EVENTS);
    }
}
