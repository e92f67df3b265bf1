//! The login of browsers under a policy of tokens. A token begins a session, which a cookie keeps.

use axum::http::{HeaderValue, request::Parts};
use maud::{Markup, html};

use super::{
    content::{Done, Failure},
    parameters::own_path,
    view::{Form, View},
};
use crate::http::{self, HttpConfig};

/// Why a caller without access does not see the page at `at`.
///
/// Browsers send the cookie of the session only with requests that this site makes, so a link of another site arrives without it.
pub(super) fn refusal(config: &HttpConfig, head: &Parts, at: &str) -> Failure {
    match config.access.takes_token() {
        true if http::is_foreign(head) => Failure::Again,
        true => Failure::SignIn { why: None, back: at.to_owned() },
        false => Failure::NoAccess,
    }
}

/// Why an action of a caller without access is not done. `page` is that of the action.
pub(super) fn action_refusal(config: &HttpConfig, head: &Parts, page: String) -> Failure {
    match refusal(config, head, "") {
        Failure::SignIn { .. } => Failure::SignIn {
            why: Some("You are not signed in, or your session has ended. The action was not done."),
            back: page,
        },
        other => other,
    }
}

/// `POST /dashboard/login`: begins a session and opens the page that asked for it.
pub(super) async fn sign_in(view: &View, config: &HttpConfig, head: &Parts, form: &Form) -> Result<Done, Failure> {
    let base = base(config, head);
    let token = form.get("token").unwrap_or_default();
    let cookie = http::sign_in(&view.endpoints, &config.access, head, &base, token).await;
    // The page that the browser opens after the login.
    let back = own_path(form, "back").unwrap_or_default();
    match cookie {
        Ok(cookie) => Ok(with_cookie(back, Some(&cookie))),
        Err(_) => Err(Failure::SignIn { why: Some("The token is wrong."), back }),
    }
}

/// `POST /dashboard/logout`: ends the session.
pub(super) fn sign_out(config: &HttpConfig, head: &Parts) -> Done {
    with_cookie(String::new(), http::sign_out(head, &base(config, head)).as_ref())
}

/// The prefix of the library's routes, which is the path of the cookie.
fn base(config: &HttpConfig, head: &Parts) -> String {
    config.base_path.clone().unwrap_or_else(|| http::prefix(head))
}

fn with_cookie(path: String, cookie: Option<&HeaderValue>) -> Done {
    let cookie = cookie.and_then(|cookie| cookie.to_str().ok());
    Done::with_cookies(path, cookie.map(str::to_owned).into_iter().collect())
}

/// The form. Password managers fill it in, and a token can be pasted.
pub(super) fn form(view: &View, why: Option<&str>, back: &str) -> Markup {
    html! {
        section {
            @if let Some(why) = why { p.failure role="alert" { (why) } }
            // The script looks whether the browser has a session that it did not send.
            form.filter method="post" action=(view.link("/login")) data-login=[why.is_none().then_some("")] {
                input type="hidden" name="back" value=(back);
                label {
                    "Token"
                    input type="password" name="token" size="40" autocomplete="current-password" required
                        aria-invalid=[why.map(|_| "true")];
                }
                button { "Sign in" }
            }
        }
    }
}
