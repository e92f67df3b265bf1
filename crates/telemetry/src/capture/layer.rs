//! The layer that captures events.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use serde_json::Value as Json;
use tracing::{
    Event, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
    registry::{LookupSpan, SpanRef},
};

use super::{CapturedLine, HAS_LAYER, LEVEL, LEVELS, LineSink, PENDING};
use crate::{
    log_writer::{OWN_TARGET, SCOPE_TARGET, log_safely},
    logs::{Fields, MESSAGE, SpanFields, Value, add_fields, char_boundary, for_each_span, keep_fields},
};

/// Maximum bytes of a message, and of the text of a field. The rest is cut.
const TEXT_BYTES: usize = 8 << 10;

/// The layer that captures, with its own filter: levels that other layers show make no difference. A filter for the whole
/// subscriber, such as an `EnvFilter` that is added as a layer, removes events from this one too.
pub fn capture_layer<S>() -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    HAS_LAYER.store(true, Ordering::Relaxed);
    CaptureLayer.with_filter(CaptureFilter)
}

struct CaptureFilter;

/// The library's own events are not captured. Spans are: sinks are attached to them.
fn is_captured(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= LEVELS[LEVEL.load(Ordering::Relaxed)]
        && (metadata.is_span() || metadata.target() != OWN_TARGET)
}

impl<S> Filter<S> for CaptureFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        is_captured(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_captured(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LEVELS[LEVEL.load(Ordering::Relaxed)])
    }
}

struct CaptureLayer;

/// The sink in the extensions of its span.
struct Attached(Arc<dyn LineSink>);

impl<S> Layer<S> for CaptureLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let sink = PENDING.take();
        let Some(span) = ctx.span(id) else { return };
        if let Some(sink) = sink {
            span.extensions_mut().insert(Attached(sink));
        }
        if span.metadata().target() != SCOPE_TARGET && nearest_sink(span.scope()).is_some() {
            keep_fields(&span, attributes);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let has_fields = span.extensions().get::<SpanFields>().is_some();
        if has_fields {
            add_fields(&span, |fields| values.record(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let Some(sink) = ctx.event_scope(event).and_then(nearest_sink) else { return };
        // No span is locked here. The text of a value is made by the application's code, which may panic or log.
        if sink.wants(event.metadata()) {
            log_safely(|| sink.receive(capture(event, &ctx)));
        }
    }
}

fn nearest_sink<'a, S>(mut scope: impl Iterator<Item = SpanRef<'a, S>>) -> Option<Arc<dyn LineSink>>
where
    S: for<'l> LookupSpan<'l> + 'a,
{
    scope.find_map(|span| span.extensions().get::<Attached>().map(|attached| attached.0.clone()))
}

fn capture<S>(event: &Event<'_>, ctx: &Context<'_, S>) -> CapturedLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (mut message, mut fields) = (String::new(), BTreeMap::new());
    event.record(&mut Fields(|name: &'static str, value: Value<'_>| match value {
        Value::Text(text) if name == MESSAGE => message = bounded(text),
        value if name == MESSAGE || !name.starts_with("log.") => drop(fields.insert(name.to_owned(), json(value))),
        // The source position that the `log` crate adds.
        _ => {}
    }));
    for_each_span(event, ctx, false, |span| {
        for (name, text) in span.iter() {
            fields.entry(name.to_owned()).or_insert_with(|| parse(text));
        }
    });
    let normalized = event.normalized_metadata();
    let target = normalized.as_ref().map_or(event.metadata().target(), Metadata::target).to_owned();
    CapturedLine { time: SystemTime::now(), level: *event.metadata().level(), target, message, fields }
}

/// A value that was written as JSON, with the bound of a captured text.
fn parse(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(Json::String(text)) => bounded(format_args!("{text}")).into(),
        // JSON has no exact number for an integer of 128 bits.
        Ok(Json::Number(number)) if number.is_f64() && !text.contains(['.', 'e']) => text.into(),
        Ok(value) => value,
        Err(_) => bounded(format_args!("{text}")).into(),
    }
}

fn json(value: Value<'_>) -> Json {
    match value {
        Value::Bool(value) => value.into(),
        Value::Signed(value) => i64::try_from(value).map_or_else(|_| value.to_string().into(), Json::from),
        Value::Unsigned(value) => u64::try_from(value).map_or_else(|_| value.to_string().into(), Json::from),
        Value::Float(value) if value.is_finite() => value.into(),
        Value::Float(value) => value.to_string().into(),
        Value::Text(text) => bounded(text).into(),
    }
}

/// Formats text of at most `TEXT_BYTES`.
fn bounded(text: fmt::Arguments<'_>) -> String {
    let mut out = Bounded { text: String::new(), left: TEXT_BYTES };
    // Fails once the text is cut.
    let _cut = out.write_fmt(text);
    out.text
}

struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = char_boundary(text, self.left);
        self.text.push_str(&text[..fits]);
        if fits == text.len() {
            self.left -= fits;
            return Ok(());
        }
        if self.left > 0 {
            self.text.push('…');
        }
        self.left = 0;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::prelude::*;

    use super::{
        super::{set_min_level, with_sink},
        *,
    };

    #[derive(Default)]
    struct Lines(Mutex<Vec<CapturedLine>>);

    impl LineSink for Lines {
        fn wants(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn receive(&self, line: CapturedLine) {
            self.0.lock().expect("no test panics").push(line);
        }
    }

    impl Lines {
        fn messages(&self) -> Vec<String> {
            self.0.lock().expect("no test panics").iter().map(|line| line.message.clone()).collect()
        }
    }

    fn capturing(run: impl FnOnce()) {
        set_min_level(LevelFilter::INFO);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(capture_layer()), run);
    }

    #[test]
    fn event_goes_to_the_nearest_sink() {
        let (outer, inner) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        capturing(|| {
            let outer_span = with_sink(|| outer.clone(), || tracing::info_span!("outer"));
            let _outer = outer_span.enter();
            let inner_span = with_sink(|| inner.clone(), || tracing::info_span!("inner"));
            inner_span.in_scope(|| tracing::info!("in both"));
            tracing::info!(parent: &inner_span, "in the parent");
            tracing::info!(parent: None, "without a parent");
            tracing::info_span!("plain").in_scope(|| tracing::info!("in the outer one"));
        });
        assert_eq!(inner.messages(), ["in both", "in the parent"]);
        assert_eq!(outer.messages(), ["in the outer one"]);
    }

    #[test]
    fn fields_of_own_spans_are_added() {
        let lines = Arc::<Lines>::default();
        capturing(|| {
            let span = || tracing::error_span!(target: SCOPE_TARGET, "job", job_id = "j-1");
            let _job = with_sink(|| lines.clone(), span).entered();
            let _outer = tracing::info_span!("outer", tier = 1, width = 2, huge = u128::MAX).entered();
            let inner = tracing::info_span!("inner", tier = 2, kind = "a", late = tracing::field::Empty).entered();
            inner.record("late", "ü".repeat(TEXT_BYTES));
            tracing::info!(kind = "b", "drawn");
        });
        let lines = lines.0.lock().expect("no test panics");
        let expected = [
            ("huge", Json::from(u128::MAX.to_string())),
            ("kind", "b".into()),
            ("late", format!("{}…", "ü".repeat(TEXT_BYTES / 2)).into()),
            ("tier", 2.into()),
            ("width", 2.into()),
        ];
        assert_eq!(lines[0].fields, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn own_lines_are_not_captured() {
        let lines = Arc::<Lines>::default();
        capturing(|| {
            let span = with_sink(|| lines.clone(), || tracing::info_span!("attempt"));
            span.in_scope(|| {
                tracing::info!(target: OWN_TARGET, "of the library");
                tracing::info!("of the handler");
            });
        });
        assert_eq!(lines.messages(), ["of the handler"]);
    }

    #[test]
    fn texts_are_cut_and_numbers_kept() {
        let lines = Arc::<Lines>::default();
        capturing(|| {
            let long = "ü".repeat(TEXT_BYTES);
            let span = with_sink(|| lines.clone(), || tracing::info_span!("long"));
            span.in_scope(|| tracing::info!(text = long, huge = u128::MAX, nan = f64::NAN, whole = -7, "{long}"));
        });
        let lines = lines.0.lock().expect("no test panics");
        let CapturedLine { message, fields, .. } = &lines[0];
        let cut = format!("{}…", "ü".repeat(TEXT_BYTES / 2));
        assert_eq!((message, &fields["text"]), (&cut, &cut.clone().into()));
        let numbers = ["huge", "nan", "whole"].map(|name| fields[name].to_string());
        assert_eq!(numbers, [format!("\"{}\"", u128::MAX), "\"NaN\"".to_owned(), "-7".to_owned()]);
    }
}
