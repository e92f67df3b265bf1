//! The access policy: which callers are operators, and what each of them may do.

use std::{fmt, sync::Arc};

use async_endpoints_core::job::Digest;
use axum::http::request::Parts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

#[cfg(feature = "dashboard")]
use super::session::SessionKey;
use super::{
    codes,
    grant::{AccessLevel, Grant, Granted, Who},
    loopback::is_local,
    problem::Problem,
    site,
};

/// The access policy. It decides which callers are operators, and their [level](AccessLevel). Operators see the jobs of all
/// owners and use the monitoring routes. With the level `operate` they also cancel and retry jobs, and change settings.
///
/// ```
/// # use async_endpoints::{Access, AccessLevel, Grant};
/// let token = Access::token("8c4f…");
/// let tokens = Access::tokens([("8c4f…", AccessLevel::Operate), ("77ab…", AccessLevel::View)]);
/// let staff = Access::when(|request| {
///     let staff = request.extensions.get::<Staff>()?;
///     let grant = if staff.is_on_call { Grant::operate() } else { Grant::view() };
///     Some(grant.named(&staff.name))
/// });
/// let development = Access::loopback();
/// # #[derive(Clone)] struct Staff { name: String, is_on_call: bool }
/// ```
#[derive(Clone)]
pub struct Access(AccessPolicy);

#[derive(Clone)]
enum AccessPolicy {
    Closed,
    Loopback,
    Tokens(Arc<[Token]>),
    When(Arc<dyn Fn(&Parts) -> Grant + Send + Sync>),
    Open,
}

/// A token of operators. The token itself is not kept.
struct Token {
    digest: Digest,
    level: AccessLevel,
    #[cfg(feature = "dashboard")]
    session: SessionKey,
}

impl Access {
    /// No caller is an operator. The default.
    pub fn closed() -> Self {
        Self(AccessPolicy::Closed)
    }

    /// Grants `operate` to requests of this machine, for development: the peer and `Host` are loopback, and no header of a
    /// proxy is set. HTTP/1.0, which proxies speak by default, is refused, and so are requests without a known peer;
    /// [`serve`](crate::AsyncEndpoints::serve) provides it.
    ///
    /// Do not use it behind a proxy on the same machine: a proxy that speaks HTTP/1.1 and sends a loopback `Host` without
    /// these headers looks like a local client.
    pub fn loopback() -> Self {
        Self(AccessPolicy::Loopback)
    }

    /// Grants `operate` to requests with `Authorization: Bearer <token>`. An empty token refuses all requests.
    pub fn token(token: &str) -> Self {
        Self::tokens([(token, AccessLevel::Operate)])
    }

    /// Grants its level to each token, sent as `Authorization: Bearer <token>`. Empty tokens are ignored.
    pub fn tokens<T: AsRef<str>>(tokens: impl IntoIterator<Item = (T, AccessLevel)>) -> Self {
        let tokens = tokens.into_iter().filter(|(token, _)| !token.as_ref().is_empty());
        Self(AccessPolicy::Tokens(tokens.map(|(token, level)| Token::new(token.as_ref(), level)).collect()))
    }

    /// Grants what the function returns: a [`Grant`] with level and name, an [`AccessLevel`], or a `bool`, where `true` is
    /// `operate`. It can read the `extensions` that the application's layers set.
    pub fn when<G: Into<Grant>>(rule: impl Fn(&Parts) -> G + Send + Sync + 'static) -> Self {
        Self(AccessPolicy::When(Arc::new(move |request| rule(request).into())))
    }

    /// Grants `operate` to all requests. Each caller then sees and handles the jobs of all owners, whatever the
    /// [owner rule](crate::Builder::owner) says.
    pub fn open() -> Self {
        Self(AccessPolicy::Open)
    }

    /// Whether callers prove themselves by a token, and browsers by a session that begins with it.
    pub(crate) fn takes_token(&self) -> bool {
        matches!(self.0, AccessPolicy::Tokens(_))
    }

    /// What the policy grants to a caller. Panics if the application's rule does.
    pub(crate) fn grant(&self, request: &Parts) -> Granted {
        match &self.0 {
            AccessPolicy::Loopback if is_local(request) => Granted::new(AccessLevel::Operate, Who::Loopback),
            AccessPolicy::Closed | AccessPolicy::Loopback => Granted::default(),
            AccessPolicy::Tokens(tokens) => match site::bearer(&request.headers) {
                Some(sent) => find(tokens, sent).map(Token::granted).unwrap_or_default(),
                None => by_session(tokens, request),
            },
            AccessPolicy::When(rule) => rule(request).into(),
            AccessPolicy::Open => Granted::new(AccessLevel::Operate, Who::Open),
        }
    }

    /// The problem of a caller that lacks a level.
    pub(super) fn refusal(&self, granted: &Granted, needed: AccessLevel) -> Problem {
        let route = format!("This route needs the level {needed}");
        match granted.level {
            AccessLevel::None if self.takes_token() => codes::UNAUTHORIZED
                .with_detail(format!("{route}: send Authorization: Bearer with a token of that level.")),
            AccessLevel::None => codes::FORBIDDEN.into(),
            level => codes::FORBIDDEN.with_detail(format!("{route}, and the caller has the level {level}.")),
        }
    }
}

#[cfg(feature = "dashboard")]
impl Access {
    /// The caller with this token, and the `Set-Cookie` value that begins its session. `None` if the token is wrong or the
    /// policy takes none. `base` is the prefix of the library's routes.
    pub(super) fn sign_in(
        &self,
        token: &str,
        request: &Parts,
        base: &str,
    ) -> Option<(Granted, axum::http::HeaderValue)> {
        let AccessPolicy::Tokens(tokens) = &self.0 else { return None };
        let token = find(tokens, token)?;
        Some((token.granted(), token.session.begin(request, base, now())?))
    }
}

#[cfg(feature = "dashboard")]
fn by_session(tokens: &[Token], request: &Parts) -> Granted {
    let found = best(tokens.iter().filter(|token| token.session.is_in(&request.headers, now())));
    found.map(|token| Granted { by_session: true, ..token.granted() }).unwrap_or_default()
}

#[cfg(not(feature = "dashboard"))]
fn by_session(_: &[Token], _: &Parts) -> Granted {
    Granted::default()
}

/// Seconds of Unix time.
#[cfg(feature = "dashboard")]
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Token {
    fn new(token: &str, level: AccessLevel) -> Self {
        Self {
            digest: Digest(Sha256::digest(token.as_bytes()).into()),
            level,
            #[cfg(feature = "dashboard")]
            session: SessionKey::of(token),
        }
    }

    fn granted(&self) -> Granted {
        Granted::new(self.level, Who::Token(self.digest))
    }
}

/// The token that was sent.
fn find<'a>(tokens: &'a [Token], sent: &str) -> Option<&'a Token> {
    let sent = Sha256::digest(sent.as_bytes());
    best(tokens.iter().filter(|token| token.digest.0.ct_eq(&sent).into()))
}

/// The token of the highest level, if one was configured with several.
fn best<'a>(tokens: impl Iterator<Item = &'a Token>) -> Option<&'a Token> {
    tokens.max_by_key(|token| token.level)
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            AccessPolicy::Closed => "Access::closed",
            AccessPolicy::Loopback => "Access::loopback",
            AccessPolicy::Tokens(_) => "Access::tokens",
            AccessPolicy::When(_) => "Access::when",
            AccessPolicy::Open => "Access::open",
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn level(access: &Access, values: &[&str]) -> AccessLevel {
        let request =
            values.iter().fold(Request::get("/jobs"), |request, value| request.header("authorization", *value));
        access.grant(&request.body(()).expect("a request").into_parts().0).level
    }

    #[test]
    fn token_must_match_and_occur_once() {
        let access = Access::token("secret");
        for right in ["Bearer secret", "bearer  secret"] {
            assert_eq!(level(&access, &[right]), AccessLevel::Operate, "{right}");
        }
        for wrong in [&[] as &[&str], &["Bearer secre"], &["Bearer"], &["Basic secret"], &["secret"]] {
            assert_eq!(level(&access, wrong), AccessLevel::None, "{wrong:?}");
        }
        assert_eq!(level(&access, &["Bearer secret", "Bearer secret"]), AccessLevel::None);
        assert_eq!(level(&Access::token(""), &["Bearer "]), AccessLevel::None);
    }

    #[test]
    fn each_token_has_its_level() {
        let view = ("read", AccessLevel::View);
        let access = Access::tokens([view, ("write", AccessLevel::Operate), ("", AccessLevel::Operate)]);
        for (token, expected) in [
            ("read", AccessLevel::View),
            ("write", AccessLevel::Operate),
            ("other", AccessLevel::None),
            ("", AccessLevel::None),
        ] {
            assert_eq!(level(&access, &[&format!("Bearer {token}")]), expected, "{token}");
        }
        let twice = Access::tokens([("read", AccessLevel::Operate), view]);
        assert_eq!(level(&twice, &["Bearer read"]), AccessLevel::Operate);
    }

    #[cfg(feature = "dashboard")]
    #[test]
    fn session_has_the_level_of_its_token_until_the_token_changes() {
        let access = Access::tokens([("read", AccessLevel::View), ("write", AccessLevel::Operate)]);
        let login = Request::post("/").header("host", "localhost").body(()).expect("a request").into_parts().0;
        assert!(access.sign_in("other", &login, "").is_none() && Access::open().sign_in("read", &login, "").is_none());
        for (token, expected) in [("read", AccessLevel::View), ("write", AccessLevel::Operate)] {
            let (granted, cookie) = access.sign_in(token, &login, "").expect("the token is right");
            assert_eq!((granted.level, granted.by_session), (expected, false));
            let cookie = cookie.to_str().expect("ASCII").split(';').next().expect("a pair");
            let request = Request::get("/jobs").header("cookie", cookie).body(()).expect("a request").into_parts().0;
            let by_session = Granted { by_session: true, ..granted };
            assert_eq!(access.grant(&request), by_session);
            let restarted = Access::tokens([("write", AccessLevel::Operate), ("read", AccessLevel::View)]);
            assert_eq!(restarted.grant(&request), by_session, "another process");
            assert_eq!(Access::token("new").grant(&request), Granted::default());
            let mut with_bearer = request.clone();
            with_bearer.headers.insert("authorization", "Bearer other".parse().expect("a value"));
            assert_eq!(access.grant(&with_bearer), Granted::default(), "the header has precedence");
        }
    }
}
