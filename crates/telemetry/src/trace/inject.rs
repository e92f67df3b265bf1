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
    Context::map_current(|context| inject_context(context, headers));
}

/// Sets the headers of a context.
pub(super) fn inject_context(context: &Context, headers: &mut HeaderMap) {
    let Some(parent) = traceparent(context).and_then(header) else { return };
    headers.insert(TRACEPARENT, parent);
    headers.remove(TRACESTATE);
    headers.extend(tracestate(context).and_then(header).map(|state| (TRACESTATE, state)));
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
    let (parent, state) = Context::map_current(|context| (traceparent(context), tracestate(context)));
    let state = state.filter(|_| parent.is_some());
    [("TRACEPARENT", parent), ("TRACESTATE", state)].into_iter().filter_map(|(name, value)| Some((name, value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::remote_context;

    #[test]
    fn current_context_replaces_earlier_headers() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("old=1"));
        inject_headers(&mut headers);
        assert_eq!(headers.len(), 1, "without a current span");
        assert_eq!(trace_env().count(), 0);
        let _attached = remote_context(parent, None).expect("a context").attach();
        inject_headers(&mut headers);
        assert_eq!((headers.len(), headers[TRACEPARENT].to_str().ok()), (1, Some(parent)));
        let _attached = remote_context(parent, Some("a=1")).expect("a context").attach();
        inject_headers(&mut headers);
        assert_eq!((headers.len(), headers[TRACESTATE].to_str().ok()), (2, Some("a=1")));
        let vars = trace_env().collect::<Vec<_>>();
        assert_eq!(vars, [("TRACEPARENT", parent.to_owned()), ("TRACESTATE", "a=1".to_owned())]);
    }
}
