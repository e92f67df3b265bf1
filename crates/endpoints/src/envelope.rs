//! The stored form of a request, written at submission and read at each attempt.
//!
//! Format 1 is a JSON object. Readers ignore unknown fields and treat missing ones as empty. A newer format is an error, and
//! the job is retried: during a rolling deployment, a newer worker may read it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::caller::Caller;

/// The parts of the HTTP request beside its body: those that a handler can read, and the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestParts {
    /// The caller, for log lines.
    #[serde(default, skip_serializing_if = "Caller::is_unknown")]
    pub(crate) caller: Caller,
    /// Captured headers, names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) headers: Vec<(String, String)>,
    /// Path parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) path: Vec<(String, String)>,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) query: Vec<(String, String)>,
}

impl RequestParts {
    /// Length of the written parts if no character needs escaping.
    fn written_len(&self) -> usize {
        let list = |name: &str, pairs: &[(String, String)]| {
            let written = |(name, value): &(String, String)| r#"["",""],"#.len() + name.len() + value.len();
            let pairs: usize = pairs.iter().map(written).sum();
            if pairs == 0 { 0 } else { name.len() + "[]".len() + pairs - 1 }
        };
        let fields = [
            ("request_id", &self.caller.request_id),
            ("user_id", &self.caller.user_id),
            ("client_address", &self.caller.client_address),
            ("user_agent", &self.caller.user_agent),
        ];
        let written =
            |(name, value): (&str, &Option<String>)| value.as_ref().map(|v| r#""":"","#.len() + name.len() + v.len());
        let caller: usize = fields.into_iter().filter_map(written).sum();
        let caller = if caller == 0 { 0 } else { CALLER.len() + "{}".len() + caller };
        caller + list(HEADERS, &self.headers) + list(PATH, &self.path) + list(QUERY, &self.query)
    }
}

const FORMAT: u32 = 1;
const BEGIN: &str = r#"{"v":1,"#;
const CALLER: &str = r#""caller":"#;
const BODY: &str = r#""body":"#;
const HEADERS: &str = r#","headers":"#;
const PATH: &str = r#","path":"#;
const QUERY: &str = r#","query":"#;

#[derive(Deserialize)]
struct Read<'a> {
    v: u32,
    #[serde(default)]
    caller: Caller,
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    path: Vec<(String, String)>,
    #[serde(default)]
    query: Vec<(String, String)>,
}

/// Writes a request. `body` must be JSON; it is stored byte for byte.
pub(crate) fn write(body: &str, parts: &RequestParts) -> Bytes {
    let written = BEGIN.len() + BODY.len() + body.len() + 1 + parts.written_len();
    let mut bytes = Vec::with_capacity(written);
    bytes.extend_from_slice(BEGIN.as_bytes());
    // First, so that `read_caller` reads nothing else.
    if !parts.caller.is_unknown() {
        bytes.extend_from_slice(CALLER.as_bytes());
        write_json(&mut bytes, &parts.caller);
        bytes.push(b',');
    }
    bytes.extend_from_slice(BODY.as_bytes());
    bytes.extend_from_slice(body.as_bytes());
    for (name, list) in [(HEADERS, &parts.headers), (PATH, &parts.path), (QUERY, &parts.query)] {
        if !list.is_empty() {
            bytes.extend_from_slice(name.as_bytes());
            write_json(&mut bytes, list);
        }
    }
    bytes.push(b'}');
    bytes.into_boxed_slice().into()
}

fn write_json(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).unwrap_or_else(|_| unreachable!("strings can be written as JSON"));
}

/// Reads the caller alone, in a time that does not depend on the size of the request. Unknown if the request did not come
/// over HTTP.
pub(crate) fn read_caller(payload: &[u8]) -> Caller {
    let caller = payload.strip_prefix(BEGIN.as_bytes()).and_then(|rest| rest.strip_prefix(CALLER.as_bytes()));
    let caller = caller.and_then(|rest| serde_json::Deserializer::from_slice(rest).into_iter().next());
    caller.and_then(Result::ok).unwrap_or_default()
}

/// Reads a request: its body as JSON text, and the other parts.
pub(crate) fn read(payload: &[u8]) -> Result<(&str, RequestParts), String> {
    let read: Read<'_> = serde_json::from_slice(payload).map_err(|error| format!("invalid stored request: {error}"))?;
    if read.v > FORMAT {
        return Err(format!("unsupported format {} of the stored request: expected at most {FORMAT}", read.v));
    }
    let Read { caller, headers, path, query, .. } = read;
    Ok((read.body.get(), RequestParts { caller, headers, path, query }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Must not change: all releases must read jobs of the first one.
    const GOLDEN: &str = r#"{"v":1,"caller":{"request_id":"r-1"},"body":{"n": 1.0},"headers":[["x-user-id","7"]],"path":[["region","eu"]],"query":[["q","a b"]]}"#;

    fn parts() -> RequestParts {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let caller = Caller { request_id: Some("r-1".to_owned()), ..Caller::default() };
        RequestParts { caller, headers: pair("x-user-id", "7"), path: pair("region", "eu"), query: pair("q", "a b") }
    }

    #[test]
    fn written_length_is_predicted() {
        let pair = |n: usize| (format!("name{n}"), "a value".to_owned());
        for n in 0..3 {
            let pairs: Vec<_> = (0..n).map(pair).collect();
            let id = |at: usize| (n > at).then(|| "id".to_owned());
            let caller = Caller { request_id: id(0), user_agent: id(1), ..Caller::default() };
            let parts = RequestParts { caller, headers: pairs.clone(), path: Vec::new(), query: pairs };
            let written = write("[1,2]", &parts);
            assert_eq!(written.len(), r#"{"v":1,"body":[1,2]}"#.len() + parts.written_len());
        }
    }

    #[test]
    fn format_1_round_trips_byte_for_byte() {
        assert_eq!(write(r#"{"n": 1.0}"#, &parts()), GOLDEN);
        assert_eq!(read(GOLDEN.as_bytes()), Ok((r#"{"n": 1.0}"#, parts())));
    }

    #[test]
    fn caller_is_read_alone() {
        assert_eq!(read_caller(GOLDEN.as_bytes()), parts().caller);
        for none in [r#"{"v":1,"body":{"caller":{"request_id":"x"}}}"#, r#"{"v":1,"caller":7"#, ""] {
            assert!(read_caller(none.as_bytes()).is_unknown(), "{none}");
        }
    }

    #[test]
    fn newer_format_is_rejected_unknown_field_ignored() {
        assert_eq!(read(br#"{"v":1,"body":null,"new":{}}"#), Ok(("null", RequestParts::default())));
        for bad in [r#"{"v":2,"body":null}"#, r#"{"v":1}"#, r#"{"body":1}"#, "[]", "", "\u{0}"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
