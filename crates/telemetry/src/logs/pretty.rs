//! A line for people: time, level, target, message, fields, then the request or job.

use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{layer, registry::LookupSpan};

use super::{
    escape::push_escaped,
    fields::{for_each_field, for_each_span, push_message},
    time::push_now,
};

/// Fields of scopes that are shown. The others are in JSON lines only.
const SHOWN: [&str; 4] = ["job_id", "job_name", "attempt", "request_id"];

const DIM: &str = "2";

/// Writes a line, with colors for a terminal if `ansi`.
pub(super) fn write<S>(out: &mut String, ansi: bool, event: &Event<'_>, ctx: &layer::Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let log = event.normalized_metadata();
    let metadata = log.as_ref().unwrap_or_else(|| event.metadata());
    styled(out, ansi, DIM, push_now);
    out.push(' ');
    let (level, color) = level(*metadata.level());
    styled(out, ansi, color, |out| out.push_str(level));
    out.push(' ');
    styled(out, ansi, DIM, |out| {
        push_escaped(out, metadata.target());
        out.push(':');
    });
    out.push(' ');
    push_message(out, event);
    for_each_field(event, |name, value| {
        push_name(out, name);
        value.push(out);
    });
    for_each_span(event, ctx, false, |fields| {
        for (name, value) in fields.iter() {
            push_name(out, name);
            out.push_str(value);
        }
    });
    styled(out, ansi, DIM, |out| push_scope(out, event, ctx));
    out.push('\n');
}

/// Of a job inside a request, the job is shown.
fn push_scope<S>(out: &mut String, event: &Event<'_>, ctx: &layer::Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut is_first = true;
    for_each_span(event, ctx, true, |fields| {
        let has_job = fields.iter().any(|(name, _)| name == SHOWN[0]);
        let shown = if has_job { &SHOWN[..3] } else { &SHOWN[3..] };
        for (name, value) in fields.iter().filter(|(name, _)| is_first && shown.contains(name)) {
            push_name(out, name);
            out.push_str(value);
        }
        is_first = false;
    });
}

fn push_name(out: &mut String, name: &str) {
    out.push(' ');
    push_escaped(out, name);
    out.push('=');
}

fn styled(out: &mut String, ansi: bool, style: &str, write: impl FnOnce(&mut String)) {
    if ansi {
        out.extend(["\x1b[", style, "m"]);
    }
    write(out);
    if ansi {
        out.push_str("\x1b[0m");
    }
}

fn level(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("ERROR", "31"),
        Level::WARN => (" WARN", "33"),
        Level::INFO => (" INFO", "32"),
        Level::DEBUG => ("DEBUG", "34"),
        Level::TRACE => ("TRACE", "35"),
    }
}
