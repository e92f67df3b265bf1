//! Reads the context of a caller from request headers.

use http::HeaderMap;
use opentelemetry::Context;

use super::w3c::remote_context;

/// Maximum length of a `tracestate`. W3C allows to drop longer ones.
const TRACESTATE_BYTES: usize = 512;

/// The context of a request's caller. None if `traceparent` is missing, malformed or repeated.
pub fn extract_headers(headers: &HeaderMap) -> Option<Context> {
    let mut parents = headers.get_all("traceparent").iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Vec<&str> = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok()).collect();
    let state = Some(states.join(",")).filter(|state| (1..=TRACESTATE_BYTES).contains(&state.len()));
    remote_context(parent.to_str().ok()?.trim(), state.as_deref())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::trace::tracestate;

    #[test]
    fn repeated_tracestate_is_joined_repeated_traceparent_ignored() {
        let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let mut headers = HeaderMap::new();
        assert!(extract_headers(&headers).is_none());
        headers.append("traceparent", parent.clone());
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        let state = |headers: &HeaderMap| extract_headers(headers).map(|context| tracestate(&context));
        assert_eq!(state(&headers), Some(Some("a=1,b=2".to_owned())));
        headers.append("tracestate", HeaderValue::from_bytes(&[b'x'; 512]).expect("a value"));
        assert_eq!(state(&headers), Some(None));
        headers.append("traceparent", parent);
        assert_eq!(state(&headers), None);
    }
}
