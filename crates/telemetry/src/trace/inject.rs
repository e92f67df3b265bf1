//! Puts the current context into outgoing requests and child processes.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;

use super::w3c::{traceparent, tracestate};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Sets `traceparent` and `tracestate` of the current context. Without a current span, leaves the headers as they are.
///
/// ```
/// # use async_endpoints_telemetry::trace::inject_headers;
/// let mut request = http::Request::get("http://127.0.0.1/");
/// inject_headers(request.headers_mut().expect("a valid request"));
/// ```
pub fn inject_headers(headers: &mut HeaderMap) {
    let (parent, state) = current();
    let Some(parent) = parent.and_then(header) else { return };
    headers.insert(TRACEPARENT, parent);
    headers.remove(TRACESTATE);
    headers.extend(state.and_then(header).map(|state| (TRACESTATE, state)));
}

fn header(text: String) -> Option<HeaderValue> {
    text.try_into().ok()
}

/// The variables `TRACEPARENT` and `TRACESTATE` of the current context, for a child process.
///
/// ```
/// # use async_endpoints_telemetry::trace::trace_env;
/// let mut command = std::process::Command::new("convert");
/// command.envs(trace_env());
/// ```
pub fn trace_env() -> impl Iterator<Item = (&'static str, String)> {
    let (parent, state) = current();
    let state = state.filter(|_| parent.is_some());
    [("TRACEPARENT", parent), ("TRACESTATE", state)].into_iter().filter_map(|(name, value)| Some((name, value?)))
}

fn current() -> (Option<String>, Option<String>) {
    Context::map_current(|context| (traceparent(context), tracestate(context)))
}
