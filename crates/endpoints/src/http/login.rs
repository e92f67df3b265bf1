//! The login of browsers: a token begins a session.

use std::time::Duration;

use axum::http::{HeaderValue, request::Parts};
use serde_json::Map;
use tokio::sync::Semaphore;

use super::{access::Access, codes, grant::Who, problem::Problem, site};
use crate::{
    AsyncEndpoints,
    audit::{Action, OK},
};

/// The name of a login in the audit trail.
const LOGIN: &str = "login";
/// How long the answer to a wrong token takes.
const PENALTY: Duration = Duration::from_secs(1);
/// Maximum number of such answers at a time in this process. Further ones are given at once and not recorded.
static PENALTIES: Semaphore = Semaphore::const_new(16);

/// Begins a session with a token. Returns the value of `Set-Cookie`. `base` is the prefix of the library's routes.
///
/// A right token is answered at once, also while wrong ones are.
pub(crate) async fn sign_in(
    endpoints: &AsyncEndpoints,
    access: &Access,
    request: &Parts,
    base: &str,
    token: &str,
) -> Result<HeaderValue, Problem> {
    let action = |who: &Who| Action { who: who.to_string(), name: LOGIN, target: None, values: Map::new() };
    let trail = endpoints.trail();
    if let Err(refusal) = site::check(request) {
        trail.record_refusal(action(&Who::Unknown), refusal.code());
        return Err(refusal);
    }
    if let Some((granted, cookie)) = access.sign_in(token, request, base) {
        return trail.record(action(&granted.who), async { Ok(cookie) }, |_| OK.into()).await;
    }
    let refusal = codes::UNAUTHORIZED.with_detail("The token is wrong.");
    if let Ok(_penalty) = PENALTIES.try_acquire() {
        trail.record_refusal(action(&Who::Unknown), refusal.code());
        tokio::time::sleep(PENALTY).await;
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use futures_util::{FutureExt, future};
    use tokio::time::Instant;

    use super::*;
    use crate::MemoryStore;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let request = Request::post("/dashboard/login").header("host", "localhost:8080");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_slow_and_block_no_one() {
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        let (access, request) = (Access::token("secret"), request(&[]));
        let begun = Instant::now();
        let sign_in = |token: &'static str| sign_in(&endpoints, &access, &request, "", token);
        let mut wrong = Box::pin(future::join_all((0..100).map(|_| sign_in("guess"))));
        assert!((&mut wrong).now_or_never().is_none(), "the first answers wait");
        assert!(sign_in("secret").await.is_ok());
        assert_eq!(begun.elapsed(), Duration::ZERO, "the right token does not wait");
        assert!(
            wrong.await.iter().all(|answer| answer.as_ref().is_err_and(|problem| problem.code() == "UNAUTHORIZED"))
        );
        assert_eq!(begun.elapsed(), PENALTY, "none waits for another");
        let entries = endpoints.audit().await.expect("memory answers");
        let failed = entries.iter().filter(|entry| entry.outcome == "UNAUTHORIZED").count();
        assert_eq!((failed, entries.len()), (16, 17), "{entries:?}");
        assert!(entries.iter().any(|entry| entry.who.starts_with("token:") && entry.outcome == "ok"));
    }

    #[tokio::test]
    async fn login_form_of_another_site_is_refused() {
        let endpoints = AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        let request = request(&[("sec-fetch-site", "cross-site")]);
        let refused = sign_in(&endpoints, &Access::token("secret"), &request, "", "secret").await;
        assert_eq!(refused.expect_err("refused").code(), "CROSS_SITE_REQUEST");
    }
}
