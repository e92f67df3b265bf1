//! The caller of a request in log lines: the request's id and, if the application wants it, user, address and user agent.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, header::USER_AGENT, request::Parts},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{error::cut, options::Enrich};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Maximum length of a request id.
const REQUEST_ID_BYTES: usize = 128;
/// Maximum bytes of another field.
const FIELD_BYTES: usize = 256;

/// Fields of a request that its log lines have, and those of the attempts of its job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caller {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
}

impl Caller {
    /// Reads the caller of a request. A request without a valid `x-request-id` gets a new one.
    pub(crate) fn identify(request: &mut Request, enrich: Enrich) -> Self {
        let peer = peer(request.extensions());
        Self::read(request.headers_mut(), peer, enrich)
    }

    /// The caller of a request: as identified by the layer of this library, else as [`identify`](Self::identify) does.
    pub(crate) fn of_parts(head: &mut Parts, enrich: Enrich) -> Self {
        let known = head.extensions.get::<Self>().cloned();
        known.unwrap_or_else(|| Self::read(&mut head.headers, peer(&head.extensions), enrich))
    }

    fn read(headers: &mut HeaderMap, peer: Option<IpAddr>, enrich: Enrich) -> Self {
        let request_id = request_id(headers);
        Self {
            user_id: enrich.user_id.then(|| text(headers, &USER_ID)).flatten(),
            client_address: enrich.client_address.then(|| address(headers, peer, enrich.trust_proxy)).flatten(),
            user_agent: enrich.user_agent.then(|| text(headers, &USER_AGENT)).flatten(),
            request_id: Some(request_id),
        }
    }

    /// Sets `x-request-id` of a response.
    pub(crate) fn echo(&self, response: &mut HeaderMap) {
        if let Some(Ok(value)) = self.request_id.as_deref().map(HeaderValue::from_str) {
            response.insert(REQUEST_ID, value);
        }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// The address of the peer, as far as the server provides it.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

/// The id of a request. Replaces a missing or invalid header by a new id, so that a captured header has it too.
fn request_id(headers: &mut HeaderMap) -> String {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let sent = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    if let Some(sent) = sent.filter(|sent| is_request_id(sent)) {
        return sent.to_owned();
    }
    let new = Uuid::now_v7().to_string();
    if let Ok(value) = HeaderValue::from_str(&new) {
        headers.insert(REQUEST_ID, value);
    }
    new
}

/// 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
fn is_request_id(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=REQUEST_ID_BYTES).contains(&text.len()) && text.bytes().all(known)
}

/// A header of visible ASCII characters, at most [`FIELD_BYTES`] of it.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (!text.is_empty()).then(|| cut(text.to_owned(), FIELD_BYTES))
}

/// The address of the peer, or of the client that connected to a trusted proxy: the last one in `x-forwarded-for`.
fn address(headers: &HeaderMap, peer: Option<IpAddr>, trust_proxy: bool) -> Option<String> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back().filter(|_| trust_proxy);
    let forwarded = last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    forwarded.or(peer).map(|address: IpAddr| address.to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const ALL: Enrich = Enrich { user_id: true, client_address: true, user_agent: true, trust_proxy: true };

    fn request(headers: &[(&str, &str)]) -> Request {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 9))));
        request
    }

    #[test]
    fn valid_request_id_is_kept() {
        for id in ["a", "A-z_0.9", &"x".repeat(128)] {
            let mut request = request(&[("x-request-id", id)]);
            assert_eq!(Caller::identify(&mut request, Enrich::default()).request_id.as_deref(), Some(id));
        }
    }

    #[test]
    fn invalid_request_id_is_replaced() {
        for ids in [&[][..], &[""], &["a b"], &["ä"], &["a\"b"], &[&"x".repeat(129)], &["a", "b"]] {
            let headers: Vec<_> = ids.iter().map(|id| ("x-request-id", *id)).collect();
            let mut request = request(&headers);
            let id = Caller::identify(&mut request, Enrich::default()).request_id.expect("an id");
            assert!(!ids.contains(&id.as_str()), "{ids:?}");
            let stored: Vec<_> = request.headers().get_all("x-request-id").iter().collect();
            assert_eq!(stored, [&id]);
        }
    }

    #[test]
    fn caller_is_logged_only_if_wanted() {
        let sent = [("x-user-id", "7"), ("user-agent", "test"), ("x-forwarded-for", "198.51.100.9, 203.0.113.5")];
        let identify = |enrich| Caller { request_id: None, ..Caller::identify(&mut request(&sent), enrich) };
        assert!(identify(Enrich::default()).is_unknown());
        let all = identify(ALL);
        assert_eq!((all.user_id.as_deref(), all.user_agent.as_deref()), (Some("7"), Some("test")));
        assert_eq!(all.client_address.as_deref(), Some("203.0.113.5"));
        let untrusted = identify(Enrich { trust_proxy: false, ..ALL });
        assert_eq!(untrusted.client_address.as_deref(), Some("192.0.2.1"));
    }
}
