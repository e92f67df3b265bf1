//! W3C Trace Context as text.

use std::{str::FromStr, sync::Arc};

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};

/// The `tracestate` of a remote caller as it was received, in its context.
#[derive(Debug)]
struct Received(Arc<str>);

/// The context of a remote span. None if `traceparent` is malformed.
///
/// Unknown flags of version 00 and the bytes of `tracestate` are kept for [`traceparent`] and [`tracestate`].
///
/// ```
/// use async_endpoints_telemetry::trace::{remote_context, traceparent, tracestate};
///
/// let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";
/// let context = remote_context(parent, Some("ot=th:8, vendor = x")).expect("a context");
/// assert_eq!(traceparent(&context).as_deref(), Some(parent));
/// assert_eq!(tracestate(&context).as_deref(), Some("ot=th:8, vendor = x"));
/// ```
pub fn remote_context(traceparent: &str, tracestate: Option<&str>) -> Option<Context> {
    let (trace, span, flags) = parse(traceparent)?;
    Some(context_of(remote_span(trace, span, flags, tracestate), tracestate))
}

/// A remote span, for a link or for [`context_of`].
pub fn remote_span(trace: TraceId, span: SpanId, flags: TraceFlags, tracestate: Option<&str>) -> SpanContext {
    SpanContext::new(trace, span, flags, true, tracestate.map(parse_state).unwrap_or_default())
}

/// The context of a remote span. Keeps the bytes of `tracestate` for [`tracestate`].
pub fn context_of(span: SpanContext, tracestate: Option<&str>) -> Context {
    let context = Context::new().with_remote_span_context(span);
    match tracestate {
        Some(text) => context.with_value(Received(text.into())),
        None => context,
    }
}

/// The `traceparent` of a context's span. None without a valid span.
pub fn traceparent(context: &Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    // Formatting the ids takes ten times as long, and each submission writes one.
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&span.trace_id().to_bytes(), &mut text[3..35]);
    write_hex(&span.span_id().to_bytes(), &mut text[36..52]);
    write_hex(&[span.trace_flags().to_u8()], &mut text[53..]);
    String::from_utf8(text.into()).ok()
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// The `tracestate` of a context's span: as it was received, unless a sampler changed it. None without one.
pub fn tracestate(context: &Context) -> Option<String> {
    let span = context.span();
    let state = span.span_context().trace_state();
    match context.get::<Received>() {
        Some(Received(text)) if parse_state(text) == *state => Some(text.as_ref().to_owned()),
        _ => Some(state.header()).filter(|text| !text.is_empty()),
    }
}

fn parse_state(text: &str) -> TraceState {
    TraceState::from_str(text).unwrap_or_default()
}

/// Fields have fixed places: `00-<trace id>-<span id>-<flags>`. Newer versions may append fields.
fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let text = text.as_bytes();
    let ([version], [flags]) = (read_hex(text.get(..2)?)?, read_hex(text.get(53..55)?)?);
    let trace = TraceId::from_bytes(read_hex(&text[3..35])?);
    let span = SpanId::from_bytes(read_hex(&text[36..52])?);
    let is_known = version == 0;
    let ends = text.len() == 55 || (!is_known && text[55] == b'-');
    if version == 0xff || !ends || [2, 35, 52].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let flags = TraceFlags::new(flags);
    // Of newer versions, only the sampled flag has a known meaning.
    let flags = if is_known { flags } else { flags & TraceFlags::SAMPLED };
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

/// Reads lower-case digits, two for each byte.
fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn malformed_traceparent_has_no_context() {
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "",
        ] {
            assert!(remote_context(bad, None).is_none(), "{bad}");
        }
    }

    #[test]
    fn newer_version_keeps_only_the_sampled_flag() {
        let newer = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-later";
        let context = remote_context(newer, None).expect("a context");
        assert_eq!(traceparent(&context).as_deref(), Some(PARENT));
    }

    #[test]
    fn changed_tracestate_replaces_the_received_one() {
        let context = remote_context(PARENT, Some("a=1 , b=2")).expect("a context");
        let span = context.span().span_context().clone();
        let with = |state| {
            let own = SpanContext::new(span.trace_id(), span.span_id(), span.trace_flags(), false, state);
            tracestate(&context.with_remote_span_context(own))
        };
        assert_eq!(with(span.trace_state().clone()).as_deref(), Some("a=1 , b=2"));
        assert_eq!(with(span.trace_state().delete("b").expect("a key")).as_deref(), Some("a=1"));
        assert_eq!(with(TraceState::NONE), None);
        assert_eq!(tracestate(&Context::new()), None);
    }
}
