//! Which site a browser's request comes from. Refuses unsafe requests that another site may have made.

use axum::http::{HeaderMap, HeaderName, header, request::Parts, uri::Authority};

use super::{codes, problem::Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses an unsafe request that another site may have made.
///
/// Browsers say in `Sec-Fetch-Site` which site made a request, except over plain HTTP to another machine. There, `Origin` must
/// equal `Host`. A request without `Origin` comes from a program, unless it carries cookies. One with a bearer token cannot be
/// made by another site in the caller's name.
pub(crate) fn check(request: &Parts) -> Result<(), Problem> {
    let headers = &request.headers;
    let is_own = request.method.is_safe()
        || if headers.contains_key(SEC_FETCH_SITE) {
            !is_foreign(request)
        } else {
            let is_of_browser = headers.contains_key(header::COOKIE) || headers.contains_key(header::ORIGIN);
            !is_of_browser || bearer(headers).is_some() || has_own_origin(request)
        };
    if is_own { Ok(()) } else { Err(codes::CROSS_SITE_REQUEST.into()) }
}

/// As [`check`], for routes that need no proof of the caller: only cookies can abuse it.
pub(super) fn check_cookies(request: &Parts) -> Result<(), Problem> {
    if request.headers.contains_key(header::COOKIE) { check(request) } else { Ok(()) }
}

/// Whether a browser marked the request as coming from another site.
pub(crate) fn is_foreign(request: &Parts) -> bool {
    request.headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none")
}

/// The token of `Authorization: Bearer`; `None` if the header occurs more than once.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The scheme and authority of `Origin`; `None` for `null` and for a missing or malformed header.
pub(super) fn origin(request: &Parts) -> Option<(&str, &str)> {
    only(&request.headers, &header::ORIGIN)?.split_once("://")
}

/// The host and port that the request is for. HTTP/2 sends the authority instead of `Host`.
pub(super) fn host(request: &Parts) -> Option<&str> {
    if request.headers.contains_key(header::HOST) {
        return only(&request.headers, &header::HOST);
    }
    request.uri.authority().map(Authority::as_str)
}

fn has_own_origin(request: &Parts) -> bool {
    let (Some((scheme, origin)), Some(host)) = (origin(request), host(request)) else { return false };
    // An origin leaves out the default port of its scheme.
    let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let is_default =
        |longer: &str| longer.strip_suffix(default_port).is_some_and(|host| host.eq_ignore_ascii_case(origin));
    host.eq_ignore_ascii_case(origin) || is_default(host)
}

/// The value of a header that occurs once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Request};

    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri("/jobs/7/retry").header("host", "jobs.example.com:8080");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn unsafe_request_must_come_from_this_site() {
        const COOKIE: (&str, &str) = ("cookie", "a=b");
        let site = |site| ("sec-fetch-site", site);
        let origin = |origin| ("origin", origin);
        for (headers, allowed) in [
            (&[] as &[_], true),
            (&[site("same-origin")], true),
            (&[site("none")], true),
            (&[site("cross-site")], false),
            (&[site("same-site")], false),
            (&[site("same-origin"), site("cross-site")], false),
            (&[site("Same-Origin")], false),
            (&[site("")], false),
            (&[origin("http://jobs.example.com:8080")], true),
            (&[origin("http://evil.example")], false),
            (&[origin("null")], false),
            (&[origin("http://evil.example"), ("authorization", "Bearer secret")], true),
            (&[COOKIE], false),
            (&[COOKIE, site("same-origin")], true),
            (&[COOKIE, site("same-origin"), origin("http://evil.example")], true),
            (&[COOKIE, site("cross-site"), origin("http://jobs.example.com:8080")], false),
            (&[COOKIE, origin("http://jobs.example.com:8080")], true),
            (&[COOKIE, origin("https://JOBS.example.com:8080")], true),
            (&[COOKIE, origin("http://jobs.example.com")], false),
            (&[COOKIE, origin("http://jobs.example.com:8081")], false),
            (&[COOKIE, origin("http://jobs.example.com:8080.evil.example")], false),
            (&[COOKIE, origin("http://evil.example/jobs.example.com:8080")], false),
            (&[COOKIE, origin("jobs.example.com:8080")], false),
            (&[COOKIE, origin("null")], false),
            (&[COOKIE, origin("")], false),
            (&[COOKIE, origin("http://jobs.example.com:8080"), origin("http://evil.example")], false),
            (&[COOKIE, ("authorization", "Bearer secret")], true),
            (&[COOKIE, ("authorization", "Basic c2VjcmV0")], false),
            (&[COOKIE, ("authorization", "Bearer secret"), site("cross-site")], false),
        ] {
            assert_eq!(check(&request(Method::POST, headers)).is_ok(), allowed, "{headers:?}");
            assert!(check(&request(Method::GET, headers)).is_ok(), "a read");
        }
        assert!(check_cookies(&request(Method::POST, &[site("cross-site")])).is_ok(), "without cookies");
    }

    #[test]
    fn default_port_of_the_origin_is_left_out() {
        for (host, origin, is_own) in [
            ("a.example:443", "https://a.example", true),
            ("a.example:80", "http://a.example", true),
            ("a.example:443", "http://a.example", false),
            ("a.example", "https://a.example", true),
            ("[::1]:80", "http://[::1]", true),
        ] {
            let mut request = request(Method::POST, &[("cookie", "a=b"), ("origin", origin)]);
            request.headers.insert("host", host.parse().expect("a value"));
            assert_eq!(check(&request).is_ok(), is_own, "{host} {origin}");
            request.headers.append("host", host.parse().expect("a value"));
            assert!(check(&request).is_err(), "two hosts");
        }
        let uri = "http://a.example/jobs";
        let mut http2 =
            Request::post(uri).header("cookie", "a=b").header("origin", "http://a.example").body(()).expect("");
        assert!(check(&http2.clone().into_parts().0).is_ok());
        *http2.uri_mut() = "/jobs".parse().expect("a path");
        assert!(check(&http2.into_parts().0).is_err(), "no host");
    }
}
