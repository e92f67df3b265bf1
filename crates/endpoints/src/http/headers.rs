//! Parsing of request headers and query parameters.

use std::fmt::Display;

use async_endpoints_core::{JobId, store::IdempotencyKey};
use axum::{
    extract::{OriginalUri, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header},
};

use super::{codes, problem::Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-async-request-id");
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Maximum bytes of captured headers per job, names and values together.
const CAPTURED_BYTES: usize = 8 << 10;

/// Copies the header values and URIs of a request, which lie in the connection's read buffer of 8 KiB. The connection
/// reads ahead, to notice a client that disconnects, and needs a second buffer as long as anything lies in the first.
pub(super) fn copy_texts(request: &mut Request) {
    for value in request.headers_mut().values_mut() {
        let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
        copy.set_sensitive(value.is_sensitive());
        *value = copy;
    }
    copy_uri(request.uri_mut());
    if let Some(OriginalUri(uri)) = request.extensions_mut().get_mut() {
        copy_uri(uri);
    }
}

fn copy_uri(uri: &mut Uri) {
    if let Ok(copy) = uri.to_string().parse() {
        *uri = copy;
    }
}

/// The value of a header; an error if the header occurs more than once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() { Err(()) } else { Ok(value) }
}

/// The members of a list header, which may occur several times. Values that are not visible ASCII are left out.
pub(super) fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| split(value, ',')).filter(|member| !member.is_empty())
}

/// Splits a value at separators outside quoted strings, in which a backslash escapes the next character.
pub(super) fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let is_separator = move |c| match c {
        _ if escaped => {
            escaped = false;
            false
        }
        '"' => {
            quoted = !quoted;
            false
        }
        '\\' => {
            escaped = quoted;
            false
        }
        c => c == separator && !quoted,
    };
    text.split(is_separator).map(str::trim)
}

/// `Idempotency-Key`, quoted as in its draft, or bare as most clients send it.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = single(headers, &IDEMPOTENCY_KEY).map_err(|()| codes::INVALID_IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| codes::INVALID_IDEMPOTENCY_KEY)?.trim();
    // A single quote is a mistake of the client: accepting it would make a different key.
    let key = match (text.strip_prefix('"'), text.strip_suffix('"')) {
        (None, None) => text,
        _ => text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(codes::INVALID_IDEMPOTENCY_KEY)?,
    };
    Ok(Some(IdempotencyKey::new(key).ok_or(codes::INVALID_IDEMPOTENCY_KEY)?))
}

/// `X-Async-Request-Id`: the job id that the client chose.
pub(super) fn request_id(headers: &HeaderMap) -> Result<Option<JobId>, Problem> {
    let value = single(headers, &REQUEST_ID).map_err(|()| codes::INVALID_REQUEST_ID)?;
    let parse = |value: &HeaderValue| value.to_str().ok()?.trim().parse().ok();
    value.map(|value| parse(value).ok_or(codes::INVALID_REQUEST_ID.into())).transpose()
}

/// Maximum seconds that a request is held.
const LONGEST_WAIT: u64 = 60;

/// The seconds of `Prefer: wait=N` (RFC 7240), at most 60. Malformed preferences are ignored.
pub(super) fn prefer_wait(headers: &HeaderMap) -> Option<u64> {
    let mut preferences = list(headers, PREFER).filter_map(|preference| {
        let (name, value) = split(preference, ';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds(value.trim().trim_matches('"')))
    });
    preferences.next()?
}

/// Whole seconds, capped at [`LONGEST_WAIT`].
fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().map_or(LONGEST_WAIT, |seconds: u64| seconds.min(LONGEST_WAIT)))
}

/// The seconds of the query parameter `wait=N`, for clients that cannot set headers. An error if it is malformed or
/// repeated.
pub(super) fn query_wait(text: &str) -> Result<Option<u64>, Problem> {
    let mut waits = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == "wait");
    match (waits.next(), waits.next()) {
        (None, _) => Ok(None),
        (Some((_, text)), None) => {
            seconds(&text).map(Some).ok_or_else(|| codes::INVALID_QUERY.with_detail("wait must be whole seconds."))
        }
        (Some(_), Some(_)) => Err(codes::INVALID_QUERY.with_detail("wait must occur once.")),
    }
}

/// The headers that a handler can read: the ones that a validator `set`, then the `allowed` ones of the request. Headers
/// beyond 8 KiB and values that are not visible ASCII are left out.
pub(super) fn captured(set: &[(String, String)], headers: &HeaderMap, allowed: &[HeaderName]) -> Vec<(String, String)> {
    let mut bytes = 0;
    let replaced = |name: &HeaderName| set.iter().any(|(set, _)| set == name.as_str());
    let sent = headers.iter().filter(|(name, _)| allowed.contains(name) && !replaced(name));
    let sent = sent.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let all = set.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(sent);
    let fitting = all.filter(|(name, value)| {
        let fits = bytes + name.len() + value.len() <= CAPTURED_BYTES;
        bytes += if fits { name.len() + value.len() } else { 0 };
        fits
    });
    fitting.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `Last-Event-ID`: the number of the last event that the client received.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    single(headers, &LAST_EVENT_ID).ok()??.to_str().ok()?.trim().parse().ok()
}

/// Whether `If-None-Match` contains this entity tag, given without quotes. The comparison is weak (RFC 9110, 13.1.2).
pub(crate) fn is_known(headers: &HeaderMap, tag: impl Display) -> bool {
    let tag = format!("\"{tag}\"");
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The offered content type with the highest quality in `Accept`; the first of equals, `None` if none is acceptable. The
/// most specific range decides the quality of a type.
pub(super) fn best_type<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    if !headers.contains_key(header::ACCEPT) {
        return offered.first().copied();
    }
    best_of(list(headers, header::ACCEPT), offered)
}

/// Like [`best_type`], for these ranges.
pub(super) fn best_of<'a, 'r>(ranges: impl Iterator<Item = &'r str>, offered: &[&'a str]) -> Option<&'a str> {
    let ranges: Vec<(&str, f32)> = ranges.map(range).collect();
    let quality_of = |kind: &str| {
        let fit = |range: &str| match range.strip_suffix("/*") {
            Some("*") => Some(0),
            Some(family) => kind.split('/').next().filter(|own| own.eq_ignore_ascii_case(family)).map(|_| 1),
            None => range.eq_ignore_ascii_case(kind).then_some(2),
        };
        let fitting = ranges.iter().filter_map(|(range, q)| Some((fit(range)?, *q)));
        fitting.max_by_key(|(closeness, _)| *closeness).map_or(0.0, |(_, q)| q)
    };
    let best = offered.iter().rev().map(|kind| (quality_of(kind), *kind)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(q, _)| *q > 0.0).map(|(_, kind)| kind)
}

/// A media range and its quality.
fn range(text: &str) -> (&str, f32) {
    let mut parts = split(text, ';');
    let kind = parts.next().unwrap_or_default();
    (kind, parts.find_map(quality).unwrap_or(1.0))
}

/// The value of the parameter `q`, 0 if it is malformed; `None` for other parameters.
pub(super) fn quality(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    name.eq_ignore_ascii_case("q").then(|| value.parse().unwrap_or(0.0))
}

/// The query parameters, in order.
pub(super) fn query(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn key(values: &[&str]) -> Result<Option<String>, ()> {
        let pairs: Vec<_> = values.iter().map(|value| ("idempotency-key", *value)).collect();
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        idempotency_key(&map).map(|key| key.map(|key| key.as_str().to_owned())).map_err(|_| ())
    }

    #[test]
    fn idempotency_key_is_quoted_or_bare_and_single() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(key(&["\"abc\""]), Ok(Some("abc".to_owned())));
        assert_eq!(key(&[&"x".repeat(255)]), Ok(Some("x".repeat(255))));
        for bad in [
            &[""] as &[&str],
            &["\"abc"],
            &["abc\""],
            &["\""],
            &["\"a\";b=1"],
            &["\"\""],
            &["a b"],
            &["é"],
            &[&"x".repeat(256)],
            &["a", "b"],
        ] {
            assert_eq!(key(bad), Err(()), "{bad:?}");
        }
    }

    #[test]
    fn request_id_must_be_uuid() {
        let id = "0197a6c0-0000-7000-8000-000000000001";
        let parse = |text: &str| request_id(&headers(&[("x-async-request-id", text)])).map_err(|_| ());
        assert_eq!(parse(id), Ok(Some(id.parse().expect("a UUID"))));
        assert_eq!(parse("7"), Err(()));
    }

    #[test]
    fn prefer_wait_is_capped_or_ignored() {
        let prefer = |text: &str| prefer_wait(&headers(&[("prefer", text)]));
        assert_eq!(prefer("wait=5"), Some(5));
        assert_eq!(prefer("respond-async, Wait = \"7\"; x=1"), Some(7));
        assert_eq!(prefer("wait=100000"), Some(60));
        assert_eq!(prefer(r#"foo="a, wait=3", wait=4"#), Some(4));
        assert_eq!(prefer(r#"foo="\", wait=3"; x="; wait=5", wait="6""#), Some(6));
        for none in [
            r#"foo="a, wait=3""#,
            r#"foo; x=", wait=3""#,
            "respond-async",
            "wait",
            "wait=",
            "wait=-1",
            "wait=x",
            "await=3",
        ] {
            assert_eq!(prefer(none), None, "{none}");
        }
        let query = |text: &str| query_wait(text).map_err(|_| ());
        assert_eq!((query("a=1"), query("wait=99"), query("wait=x")), (Ok(None), Ok(Some(60)), Err(())));
    }

    #[test]
    fn accept_selects_highest_quality() {
        let offered = ["application/x-ndjson", "text/plain", "text/event-stream"];
        let best = |values: &[(&'static str, &str)]| best_type(&headers(values), &offered);
        assert_eq!(best(&[]), Some(offered[0]));
        for (accept, expected) in [
            ("*/*", Some(offered[0])),
            ("text/*", Some(offered[1])),
            ("Text/Plain", Some(offered[1])),
            ("TEXT/*;Q=0.5, application/x-ndjson;Q=0.1", Some(offered[1])),
            ("text/event-stream", Some(offered[2])),
            ("text/plain;q=0.5, text/event-stream;q=0.8", Some(offered[2])),
            ("text/*;q=0.5, text/plain;q=0, */*;q=0.1", Some(offered[2])),
            ("text/html, */*;q=0.1", Some(offered[0])),
            (r#"text/html;x=", text/plain", text/event-stream;x=";q=0";q=0.1"#, Some(offered[2])),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(best(&[("accept", accept)]), expected, "{accept}");
        }
    }

    #[test]
    fn captured_headers_are_allowed_and_limited() {
        let allowed = [HeaderName::from_static("user-agent"), HeaderName::from_static("x-user-id")];
        let long = "x".repeat(9000);
        let found =
            captured(&[], &headers(&[("user-agent", &long), ("cookie", "secret"), ("x-user-id", "7")]), &allowed);
        let user = |name: &str| [("x-user-id".to_owned(), name.to_owned())];
        assert_eq!(found, user("7"));
        let found = captured(&user("8"), &headers(&[("x-user-id", "7")]), &allowed);
        assert_eq!(found, user("8"), "the validator's value replaces the client's");
    }
}
