//! The layer of one output.

use tracing::{
    Event, Subscriber,
    field::Visit,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

use super::{
    fields::{Fields, SpanFields, Value, with_buffer},
    json, pretty,
};
use crate::log_writer::{LogWriter, log_safely};

/// How lines look.
pub(super) enum Style {
    /// With the resource's keys.
    Json(String),
    Pretty {
        ansi: bool,
    },
}

/// Formats events and gives them to a writer. Outputs share the text of span fields.
pub(super) struct OutputLayer {
    pub(super) style: Style,
    pub(super) writer: LogWriter,
}

impl<S> Layer<S> for OutputLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        keep_fields(&span, attributes);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        add_fields(&span, |fields| values.record(fields));
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        // The text of a value is made by the application's code, which may panic.
        log_safely(|| {
            with_buffer(|line| {
                match &self.style {
                    Style::Json(resource) => json::write(line, resource, event, &ctx),
                    Style::Pretty { ansi } => pretty::write(line, *ansi, event, &ctx),
                }
                self.writer.send(line.as_bytes());
            });
        });
    }
}

/// Keeps the fields of a new span with it, unless another layer did.
pub(crate) fn keep_fields<S>(span: &SpanRef<'_, S>, attributes: &Attributes<'_>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if span.extensions().get::<SpanFields>().is_none() {
        add_fields(span, |fields| attributes.record(fields));
    }
}

/// Formats fields before the span is locked: the application's code that makes their text may log.
pub(crate) fn add_fields<S>(span: &SpanRef<'_, S>, record: impl FnOnce(&mut dyn Visit))
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut added = SpanFields::default();
    log_safely(|| record(&mut Fields(|name, value: Value<'_>| added.push(name, value))));
    let mut extensions = span.extensions_mut();
    match extensions.get_mut::<SpanFields>() {
        Some(fields) => fields.merge(added),
        None => extensions.insert(added),
    }
}
