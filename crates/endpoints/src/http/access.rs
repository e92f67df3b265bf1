//! Authorization: the access policy of operator routes, and the owners of jobs.

use std::{fmt, net::IpAddr, net::SocketAddr, sync::Arc};

use async_endpoints_core::job::Digest;
use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, Version, header, request::Parts, uri::Authority},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::{codes, problem::Problem};
use crate::owner::JobOwner;

/// The access policy. It decides which callers are operators: they see and handle the jobs of all owners, list and retry
/// jobs, and use all monitoring routes.
///
/// ```
/// # use async_endpoints::Access;
/// let token = Access::token("8c4f…");
/// let staff = Access::when(|request| request.extensions.get::<Staff>().is_some());
/// let development = Access::loopback();
/// # #[derive(Clone)] struct Staff;
/// ```
#[derive(Clone)]
pub struct Access(AccessPolicy);

#[derive(Clone)]
enum AccessPolicy {
    Closed,
    Loopback,
    Token(Option<Digest>),
    When(Arc<dyn Fn(&Parts) -> bool + Send + Sync>),
    Open,
}

impl Access {
    /// No caller is an operator. The default.
    pub fn closed() -> Self {
        Self(AccessPolicy::Closed)
    }

    /// Allows requests of this machine, for development: the peer and `Host` are loopback, and no header of a proxy is set.
    /// HTTP/1.0, which proxies speak by default, is refused, and so are requests without a known peer;
    /// [`serve`](crate::AsyncEndpoints::serve) provides it.
    ///
    /// Do not use it behind a proxy on the same machine: a proxy that speaks HTTP/1.1 and sends a loopback `Host` without
    /// these headers looks like a local client.
    pub fn loopback() -> Self {
        Self(AccessPolicy::Loopback)
    }

    /// Allows requests with `Authorization: Bearer <token>`. An empty token refuses all requests.
    pub fn token(token: &str) -> Self {
        Self(AccessPolicy::Token((!token.is_empty()).then(|| digest(token))))
    }

    /// Allows requests for which the function returns true. It can read the `extensions` that the application's layers set.
    pub fn when(allowed: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        Self(AccessPolicy::When(Arc::new(allowed)))
    }

    /// Allows all requests. Each caller then sees and handles the jobs of all owners, whatever the
    /// [owner rule](crate::Builder::owner) says.
    pub fn open() -> Self {
        Self(AccessPolicy::Open)
    }

    /// Whether the policy reads `Authorization`.
    pub(super) fn takes_token(&self) -> bool {
        matches!(self.0, AccessPolicy::Token(_))
    }

    /// Whether the caller is an operator. Panics if the application's predicate does.
    pub(super) fn grants(&self, request: &Parts) -> bool {
        match &self.0 {
            AccessPolicy::Closed => false,
            AccessPolicy::Loopback => is_local(request),
            AccessPolicy::Token(token) => match (token, bearer(&request.headers)) {
                (Some(token), Some(sent)) => token.0.ct_eq(&digest(sent).0).into(),
                _ => false,
            },
            AccessPolicy::When(allowed) => allowed(request),
            AccessPolicy::Open => true,
        }
    }

    /// The problem of a caller that is no operator.
    pub(super) fn refusal(&self) -> Problem {
        if self.takes_token() { codes::UNAUTHORIZED.into() } else { codes::FORBIDDEN.into() }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            AccessPolicy::Closed => "Access::closed",
            AccessPolicy::Loopback => "Access::loopback",
            AccessPolicy::Token(_) => "Access::token",
            AccessPolicy::When(_) => "Access::when",
            AccessPolicy::Open => "Access::open",
        })
    }
}

fn digest(token: &str) -> Digest {
    Digest(Sha256::digest(token.as_bytes()).into())
}

/// The token of `Authorization: Bearer`; `None` if the header occurs more than once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_local(request: &Parts) -> bool {
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

fn is_loopback_host(authority: &Authority) -> bool {
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    !authority.as_str().contains('@')
        && (host.eq_ignore_ascii_case("localhost") || ip.parse().is_ok_and(|ip: IpAddr| is_loopback(ip)))
}

/// Refuses an unsafe request that a browser sent for another site with this site's cookies.
pub(super) fn check_cookies(request: &Parts) -> Result<(), Problem> {
    if request.headers.contains_key(header::COOKIE) { check_site(request) } else { Ok(()) }
}

/// Refuses an unsafe request that a browser marked as coming from another site.
pub(super) fn check_site(request: &Parts) -> Result<(), Problem> {
    let mut sites = request.headers.get_all("sec-fetch-site").iter();
    let is_cross_site = sites.any(|site| site != "same-origin" && site != "none");
    if is_cross_site && !request.method.is_safe() { Err(codes::CROSS_SITE_REQUEST.into()) } else { Ok(()) }
}

/// The owner of a request, returned by the application's [rule](crate::Builder::owner). It decides which owner new jobs
/// get and which jobs the request sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// New jobs belong to this owner; jobs of this owner are visible.
    Of(String),
    /// New jobs have no owner; jobs without an owner are visible.
    None,
    /// New jobs have no owner; all jobs are visible. For internal services that read jobs and are no operators: operators
    /// see all jobs whatever the rule returns.
    All,
}

impl From<String> for Owner {
    fn from(name: String) -> Self {
        Self::Of(name)
    }
}

impl From<&str> for Owner {
    fn from(name: &str) -> Self {
        Self::Of(name.to_owned())
    }
}

impl<T: Into<Owner>> From<Option<T>> for Owner {
    fn from(name: Option<T>) -> Self {
        name.map_or(Self::None, Into::into)
    }
}

/// Maps a request to its owner.
pub(crate) type OwnerRule = Arc<dyn Fn(&Parts) -> Owner + Send + Sync>;

/// The owner of a request's new jobs. `keeps_names` is [`Options::owner_labels`](crate::Options::owner_labels).
pub(crate) fn owner_of(rule: Option<&OwnerRule>, request: &Parts, keeps_names: bool) -> Option<JobOwner> {
    Visibility::of(rule, request, keeps_names).owner().cloned()
}

/// Which jobs the owner rule shows to a caller. An operator sees all jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    All,
    Own(Option<JobOwner>),
}

impl Visibility {
    /// `keeps_names` is [`Options::owner_labels`](crate::Options::owner_labels).
    pub(super) fn of(rule: Option<&OwnerRule>, request: &Parts, keeps_names: bool) -> Self {
        match rule.map(|rule| rule(request)) {
            None | Some(Owner::All) => Self::All,
            Some(Owner::None) => Self::Own(None),
            Some(Owner::Of(name)) => Self::Own(Some(JobOwner::new(&name, keeps_names))),
        }
    }

    /// The owner of the caller's new jobs.
    pub(super) fn owner(&self) -> Option<&JobOwner> {
        match self {
            Self::All => None,
            Self::Own(owner) => owner.as_ref(),
        }
    }

    /// Whether the caller is an owner of jobs.
    pub(super) fn is_owner(&self) -> bool {
        self.owner().is_some()
    }

    pub(super) fn includes(&self, owner: Option<Digest>) -> bool {
        matches!(self, Self::All) || self.owner().map(JobOwner::digest) == owner
    }
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

    #[test]
    fn token_must_match_and_occur_once() {
        let access = Access::token("secret");
        let check = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            access.grants(&parts(None, &headers))
        };
        assert!(check(&["Bearer secret"]) && check(&["bearer  secret"]));
        for wrong in [&[] as &[&str], &["Bearer secre"], &["Bearer"], &["Basic secret"], &["secret"]] {
            assert!(!check(wrong), "{wrong:?}");
        }
        assert!(!check(&["Bearer secret", "Bearer secret"]));
        assert!(!Access::token("").grants(&parts(None, &[("authorization", "Bearer ")])));
    }

    #[test]
    fn unsafe_cross_site_request_is_refused() {
        let mut request = parts(None, &[("sec-fetch-site", "cross-site")]);
        assert!(check_site(&request).is_ok(), "a read");
        request.method = axum::http::Method::POST;
        assert!(check_site(&request).is_err());
        request.headers.insert("sec-fetch-site", "same-origin".parse().expect("a value"));
        assert!(check_site(&request).is_ok());
    }
}
