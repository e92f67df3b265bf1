//! Authenticates callers.

use async_endpoints::Problem;
use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};

pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) is_operator: bool,
}

/// Stands for a session or an identity provider.
pub(crate) fn user_of(headers: &HeaderMap) -> Option<User> {
    match headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")? {
        "ada-secret" => Some(User { name: "ada", is_operator: false }),
        "bob-secret" => Some(User { name: "bob", is_operator: false }),
        "ops-secret" => Some(User { name: "ops", is_operator: true }),
        _ => None,
    }
}

/// A layer that refuses requests of unknown callers.
pub(crate) async fn authenticate(request: Request, next: Next) -> Response {
    match user_of(request.headers()) {
        Some(_) => next.run(request).await,
        None => Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "A token is needed").into_response(),
    }
}
