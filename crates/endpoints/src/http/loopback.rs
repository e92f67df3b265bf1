//! Requests of this machine.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{Version, header, request::Parts, uri::Authority},
};

/// Whether the peer and `Host` are loopback, and no proxy is known to be between.
pub(super) fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let is_of_proxy =
        |name: &str| matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-");
    let proxied = request.version == Version::HTTP_10 || request.headers.keys().any(|name| is_of_proxy(name.as_str()));
    let authority = request.uri.authority().is_none_or(is_loopback_host);
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_ok_and(|host| is_loopback_host(&host)),
        // HTTP/2 sends the authority instead of `Host`.
        (None, _) => request.uri.authority().is_some(),
        _ => false,
    };
    peer.is_some_and(|ConnectInfo(peer)| is_loopback(peer.ip())) && host && authority && !proxied
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Whether a host is an address of this machine, or `localhost`.
pub(super) fn is_loopback_host(authority: &Authority) -> bool {
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    !authority.as_str().contains('@')
        && (host.eq_ignore_ascii_case("localhost") || ip.parse().is_ok_and(|ip: IpAddr| is_loopback(ip)))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(peer: Option<&str>, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        if let Some(peer) = peer {
            parts.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().expect("an address"), 9)));
        }
        parts
    }

    #[test]
    fn loopback_requires_peer_host_and_no_proxy() {
        let local = |peer, headers: &[(&str, &str)]| is_local(&parts(peer, headers));
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.1.2.3", "[::1]:8080", "[::ffff:127.0.0.1]"]
            {
                assert!(local(Some(peer), &[("host", host)]), "{peer} {host}");
            }
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1", "x@localhost", "localhost@x", "", "[::2]"] {
            assert!(!local(Some("127.0.0.1"), &[("host", host)]), "{host}");
        }
        let host = ("host", "localhost");
        assert!(!local(Some("127.0.0.1"), &[]), "no host");
        assert!(!local(Some("127.0.0.1"), &[host, host]), "two hosts");
        assert!(!local(Some("10.0.0.1"), &[host]), "another machine");
        assert!(!local(None, &[host]), "an unknown peer");
        for name in ["forwarded", "via", "x-real-ip", "x-forwarded-for", "X-Forwarded-Anything"] {
            assert!(!local(Some("127.0.0.1"), &[host, (name, "x")]), "{name}");
        }
        let mut old = parts(Some("127.0.0.1"), &[host]);
        old.version = Version::HTTP_10;
        assert!(!is_local(&old), "HTTP/1.0");
    }
}
