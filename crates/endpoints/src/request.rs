//! Stored requests as operators read them, after the application's redaction.

use std::sync::Arc;

use async_endpoints_core::JobName;
use serde::Serialize;
use serde_json::Value;

use crate::envelope;

/// Headers that operators never see, even if the application captures them for its handlers.
const SECRET_HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

/// The stored request of a job. [`Builder::redact_requests`](crate::Builder::redact_requests) can change every field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredRequest {
    /// The job's type. A change has no effect.
    #[serde(skip)]
    pub name: JobName,
    /// The body.
    pub body: Value,
    /// The captured headers, names in lower case. Without `authorization`, `proxy-authorization`, `cookie`, `set-cookie` and
    /// `x-api-key`.
    pub headers: Vec<(String, String)>,
    /// Path parameters.
    pub path: Vec<(String, String)>,
    /// Query parameters.
    pub query: Vec<(String, String)>,
}

/// The answer to a read of a stored request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestLookup {
    /// The request, redacted.
    Found(Box<StoredRequest>),
    /// [`Options::expose_requests`](crate::Options::expose_requests) is not set.
    NotExposed,
    /// The request is not stored: the job completed, has expired or is unknown.
    NotKept,
}

/// The application's rule, which changes a request before an operator sees it.
pub(crate) type RedactionRule = Arc<dyn Fn(&mut StoredRequest) + Send + Sync>;

/// Reads a stored request and redacts it.
pub(crate) fn read(name: JobName, payload: &[u8], rule: Option<&RedactionRule>) -> Result<StoredRequest, String> {
    let (body, parts) = envelope::read(payload)?;
    let body = serde_json::from_str(body).map_err(|error| format!("invalid stored body: {error}"))?;
    let headers = parts.headers.into_iter().filter(|(name, _)| !SECRET_HEADERS.contains(&name.as_str())).collect();
    let mut request = StoredRequest { name, body, headers, path: parts.path, query: parts.query };
    if let Some(redact) = rule {
        redact(&mut request);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use async_endpoints_testkit::jobs::name;
    use serde_json::json;

    use super::*;

    const PAYLOAD: &[u8] =
        br#"{"v":1,"body":{"card":"4711"},"headers":[["cookie","s"],["x-user-id","7"]],"query":[["q","a"]]}"#;

    fn pair(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn secret_headers_are_left_out() {
        let request = read(name("Pay"), PAYLOAD, None).expect("a request");
        assert_eq!(request.headers, pair("x-user-id", "7"));
        assert_eq!((request.body, request.query), (json!({"card": "4711"}), pair("q", "a")));
    }

    #[test]
    fn rule_changes_the_request() {
        let rule: RedactionRule = Arc::new(|request: &mut StoredRequest| {
            request.body["card"] = json!(format!("hidden in {}", request.name));
            request.headers.clear();
        });
        let request = read(name("Pay"), PAYLOAD, Some(&rule)).expect("a request");
        assert_eq!((request.body, request.headers), (json!({"card": "hidden in Pay"}), vec![]));
    }

    #[test]
    fn unreadable_request_is_an_error() {
        assert!(read(name("Pay"), b"\xff", None).is_err());
    }
}
