//! Values of events and spans, as text that both formats write.

use std::{
    cell::Cell,
    error::Error,
    fmt::{self, Write},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{layer, registry::LookupSpan};

use super::{
    escape::push_escaped,
    redact::{REDACTED, is_secret},
};
use crate::log_writer::SCOPE_TARGET;

/// Maximum number of bytes of a value. The rest is cut.
const MAX_VALUE: usize = 16 << 10;
const CUT: &str = "… [cut at 16384 bytes]";

/// The field with the text of an event.
pub(crate) const MESSAGE: &str = "message";

/// Fields such as `otel.kind` are settings of a span for `tracing-opentelemetry`.
const SPAN_SETTINGS: &str = "otel.";

/// A value of a field.
#[derive(Copy, Clone)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    Text(fmt::Arguments<'a>),
}

impl Value<'_> {
    /// Appends the value as JSON. Floats that JSON has no number for are strings.
    pub(super) fn push(self, out: &mut String) {
        let _infallible = match self {
            Self::Bool(value) => write!(out, "{value}"),
            Self::Signed(value) => write!(out, "{value}"),
            Self::Unsigned(value) => write!(out, "{value}"),
            Self::Float(value) if value.is_finite() => write!(out, "{value:?}"),
            Self::Float(value) => write!(out, "\"{value}\""),
            Self::Text(_) => {
                out.push('"');
                self.push_bare(out);
                out.push('"');
                Ok(())
            }
        };
    }

    /// Appends the value without quotes, which is valid inside of them.
    pub(super) fn push_bare(self, out: &mut String) {
        match self {
            Self::Text(text) => drop(Bounded { out, left: MAX_VALUE }.write_fmt(text)),
            number => number.push(out),
        }
    }
}

/// Escapes text, and cuts it.
struct Bounded<'a> {
    out: &'a mut String,
    left: usize,
}

impl Write for Bounded<'_> {
    /// Fails once text is cut, which ends its formatting.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = char_boundary(text, self.left);
        push_escaped(self.out, &text[..fits]);
        if fits < text.len() {
            self.out.push_str(CUT);
            self.left = 0;
            return Err(fmt::Error);
        }
        self.left -= fits;
        Ok(())
    }
}

/// The end of the last whole character within `length` bytes.
pub(crate) fn char_boundary(text: &str, length: usize) -> usize {
    if length >= text.len() {
        return text.len();
    }
    (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Gives the fields of an event or a span to a function. Values of secrets are replaced.
pub(crate) struct Fields<F>(pub(crate) F);

impl<F: FnMut(&'static str, Value<'_>)> Fields<F> {
    fn give(&mut self, field: &Field, value: Value<'_>) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        if name.starts_with(SPAN_SETTINGS) {
            return;
        }
        if is_secret(name) {
            return (self.0)(name, Value::Text(format_args!("{REDACTED}")));
        }
        (self.0)(name, value);
    }
}

impl<F: FnMut(&'static str, Value<'_>)> Visit for Fields<F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.give(field, Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.give(field, Value::Signed(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.give(field, Value::Unsigned(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.give(field, Value::Signed(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.give(field, Value::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.give(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.give(field, Value::Text(format_args!("{value}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.give(field, Value::Text(format_args!("{}", Chain(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.give(field, Value::Text(format_args!("{value:?}")));
    }
}

/// An error and its sources.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The fields of a span, written once: names and JSON values.
#[derive(Default)]
pub(crate) struct SpanFields(Vec<(&'static str, String)>);

impl SpanFields {
    pub(super) fn push(&mut self, name: &'static str, value: Value<'_>) {
        let mut text = String::new();
        value.push(&mut text);
        self.0.push((name, text));
    }

    /// Adds fields. A field that is known already takes the new value.
    pub(super) fn merge(&mut self, added: Self) {
        for (name, text) in added.0 {
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = text,
                None => self.0.push((name, text)),
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// Appends the text of an event.
pub(super) fn push_message(out: &mut String, event: &Event<'_>) {
    event.record(&mut Fields(|name: &'static str, value: Value<'_>| {
        if name == MESSAGE {
            value.push_bare(out);
        }
    }));
}

/// Calls a function for each field of an event except its text and the source position that the `log` crate adds.
pub(super) fn for_each_field(event: &Event<'_>, mut each: impl FnMut(&'static str, Value<'_>)) {
    event.record(&mut Fields(|name: &'static str, value: Value<'_>| {
        if name != MESSAGE && !(name.starts_with("log.") && event.is_log()) {
            each(name, value);
        }
    }));
}

/// Calls a function for each span around an event, the innermost first: either those of [`SCOPE_TARGET`] or the others.
pub(crate) fn for_each_span<S>(
    event: &Event<'_>,
    ctx: &layer::Context<'_, S>,
    of_scope: bool,
    mut each: impl FnMut(&SpanFields),
) where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    for span in ctx.event_scope(event).into_iter().flatten() {
        if (span.metadata().target() == SCOPE_TARGET) == of_scope
            && let Some(fields) = span.extensions().get::<SpanFields>()
        {
            each(fields);
        }
    }
}

thread_local! {
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Lends this thread's buffer. A line that is logged while another is formatted gets a new one.
pub(super) fn with_buffer(write: impl FnOnce(&mut String)) {
    let mut buffer = BUFFER.take();
    buffer.clear();
    write(&mut buffer);
    buffer.shrink_to(MAX_VALUE);
    BUFFER.set(buffer);
}
