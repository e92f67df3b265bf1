//! A line as one flat JSON object.
//!
//! Keys come in this order: those of every line, ids of the current OpenTelemetry span, fields of the spans in scope, fields
//! of the event. A key is written once:
//! - Of spans that share a field name, the innermost counts. Fields of [`SCOPE_TARGET`](crate::SCOPE_TARGET) come first.
//! - An event's field, or a field of the application's spans, whose name is a key already is written as `field_<name>`. It
//!   can so replace neither `level` nor `job_id`. A field that repeats the value of its key is left out.

use std::{borrow::Cow, ops::Range};

use opentelemetry::{Context, trace::TraceContextExt};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{layer, registry::LookupSpan};

use super::{
    escape::push_escaped,
    fields::{MESSAGE, SpanFields, Value, for_each_field, for_each_span, push_message},
    time::push_now,
};

/// Keys of every line.
const FIXED: [&str; 6] = ["timestamp", "level", MESSAGE, "target", "service", "environment"];

/// Number of keys that most lines have at most.
const MOST_KEYS: usize = 32;

/// The keys of the resource, as text of each line.
pub(super) fn resource(service: &str, environment: Option<&str>) -> String {
    let mut text = String::new();
    for (name, value) in [("service", Some(service)), ("environment", environment)] {
        if let Some(value) = value {
            push_key(&mut text, name);
            Value::Text(format_args!("{value}")).push(&mut text);
        }
    }
    text
}

/// Writes a line. `resource` is made by [`resource`].
pub(super) fn write<S>(out: &mut String, resource: &str, event: &Event<'_>, ctx: &layer::Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let log = event.normalized_metadata();
    let metadata = log.as_ref().unwrap_or_else(|| event.metadata());
    out.push_str("{\"timestamp\":\"");
    push_now(out);
    out.push_str("\",\"level\":\"");
    out.push_str(metadata.level().as_str());
    out.push_str("\",\"message\":\"");
    push_message(out, event);
    out.push_str("\",\"target\":\"");
    push_escaped(out, metadata.target());
    out.push('"');
    out.push_str(resource);
    let mut line = Line { out, keys: Vec::with_capacity(MOST_KEYS) };
    line.keys.extend(FIXED.map(|name| Key { name: name.into(), value: 0..0 }));
    line.push_current_span();
    for_each_span(event, ctx, true, |fields| line.push_scope(fields));
    let taken = line.keys.len();
    for_each_span(event, ctx, false, |fields| line.push_span(fields, taken));
    for_each_field(event, |name, value| line.push_other(name, |out| value.push(out)));
    out.push_str("}\n");
}

struct Line<'a> {
    out: &'a mut String,
    keys: Vec<Key>,
}

struct Key {
    name: Cow<'static, str>,
    /// Position of the value in the line.
    value: Range<usize>,
}

impl Line<'_> {
    fn push_current_span(&mut self) {
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            if span.is_valid() {
                self.push("trace_id".into(), |out| Value::Text(format_args!("{}", span.trace_id())).push(out));
                self.push("span_id".into(), |out| Value::Text(format_args!("{}", span.span_id())).push(out));
            }
        });
    }

    fn push_scope(&mut self, fields: &SpanFields) {
        for (name, value) in fields.iter() {
            if self.position(name).is_none() {
                self.push(name.into(), |out| out.push_str(value));
            }
        }
    }

    /// The first keys are `taken`; the others are of spans further inside.
    fn push_span(&mut self, fields: &SpanFields, taken: usize) {
        for (name, value) in fields.iter() {
            if self.position(name).is_none_or(|at| at < taken) {
                self.push_other(name, |out| out.push_str(value));
            }
        }
    }

    /// Writes a field whose name may be a key already.
    fn push_other(&mut self, name: &'static str, value: impl FnOnce(&mut String)) {
        let Some(at) = self.position(name) else { return self.push(name.into(), value) };
        let mut text = String::new();
        value(&mut text);
        if self.out[self.keys[at].value.clone()] != text {
            let mut other = format!("field_{name}");
            while self.position(&other).is_some() {
                other.insert_str(0, "field_");
            }
            self.push(other.into(), |out| out.push_str(&text));
        }
    }

    fn push(&mut self, name: Cow<'static, str>, value: impl FnOnce(&mut String)) {
        push_key(self.out, &name);
        let start = self.out.len();
        value(self.out);
        self.keys.push(Key { name, value: start..self.out.len() });
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }
}

fn push_key(out: &mut String, key: &str) {
    out.push_str(",\"");
    push_escaped(out, key);
    out.push_str("\":");
}
