//! The routes below `/dashboard`: access, dispatch, response headers.

use std::{panic::AssertUnwindSafe, sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::FutureExt;
use maud::Markup;

use super::{
    assets,
    content::{Answer, Content, Done, Failure},
    live, login, pages, preferences,
    renderer::Dashboard,
    shell,
    view::{self, Form, PATH, View},
};
use crate::{
    AccessLevel, AsyncEndpoints,
    audit::{Action, Outcome},
    http::{Granted, HttpConfig, check_site, compressed, is_known},
};

/// Maximum bytes of a form.
const FORM_BYTES: usize = 64 << 10;

/// What is allowed on a page: only files, forms and streams of this server, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Makes the routes of the dashboard.
pub(crate) fn routes(endpoints: &AsyncEndpoints, config: &Arc<HttpConfig>) -> Router {
    let dashboard = Arc::new(Dashboard::new(endpoints, config));
    let handler = move |request: Request| answer(dashboard.clone(), request);
    let methods = any(handler);
    let router = Router::new()
        .route(PATH, methods.clone())
        .route("/dashboard/", methods.clone())
        .route("/dashboard/{*path}", methods);
    router.route_layer(endpoints.measured().layer())
}

async fn answer(dashboard: Arc<Dashboard>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let answered = AssertUnwindSafe(respond(&dashboard, &head, body)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        let view = dashboard.view_of(Granted::default(), &head, view::at(&head.uri));
        failed(&head, &view, &Failure::Panic, None)
    });
    secure(&mut response);
    response
}

async fn respond(dashboard: &Arc<Dashboard>, head: &Parts, body: Body) -> Response {
    let at = view::at(&head.uri);
    match head.method {
        Method::GET | Method::HEAD => {}
        Method::POST => return act(dashboard, head, body, at).await,
        _ => return failed(head, &dashboard.view(head, at), &Failure::Method, None),
    }
    if at == "/" {
        return open("../dashboard");
    }
    if let Some(file) = at.strip_prefix("/assets/").and_then(|name| assets::file(name, &head.headers)) {
        return file;
    }
    if at.starts_with("/live?") {
        return live::stream(dashboard, head).await;
    }
    let view = dashboard.view(head, at);
    if *view.segments() == ["jobs.csv"] {
        let file = match dashboard.admit(&view, head) {
            Ok(()) => Box::pin(pages::jobs_csv(&view)).await,
            Err(refusal) => Err(refusal),
        };
        return file.unwrap_or_else(|failure| failed(head, &view, &failure, None));
    }
    let content = dashboard.content(&view, head).await;
    match content {
        Ok(content) => show(head, &view, &content),
        Err(Failure::Moved(path)) => open(&view.link(&path)),
        Err(failure) => failed(head, &view, &failure, None),
    }
}

/// Answers a form.
async fn act(dashboard: &Dashboard, head: &Parts, body: Body, at: &str) -> Response {
    let bytes = axum::body::to_bytes(body, FORM_BYTES).await;
    let view = dashboard.view(head, at);
    let form = bytes.map(|bytes| Form::read(&bytes));
    let done = match &form {
        _ if check_site(head).is_err() => Err(Failure::CrossSite),
        Err(_) => Err(Failure::Invalid(format!("The form is longer than {FORM_BYTES} bytes."))),
        Ok(form) => match *view.segments() {
            ["login"] => Box::pin(login::sign_in(&view, &dashboard.config, head, form)).await,
            ["logout"] => Ok(login::sign_out(&dashboard.config, head)),
            _ if view.caller.level == AccessLevel::None => {
                let page = pages::page_of_action(&view).unwrap_or_default();
                Err(login::action_refusal(&dashboard.config, head, page))
            }
            ["preferences"] => preferences::change(form),
            _ if !view.may_operate() => Err(Failure::ViewOnly),
            _ => act_recorded(&view, form).await,
        },
    };
    if let Err(failure @ (Failure::CrossSite | Failure::ViewOnly)) = &done {
        record_refusal(dashboard, head, &view, failure);
    }
    match done.map(|done| done.answer) {
        Ok(Answer::Open { path, cookies }) => {
            let mut response = open(&view.link(&path));
            for cookie in cookies.iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        Ok(Answer::Show(status, content)) => {
            let mut response = document(head, shell::result(&view, &content, SystemTime::now().into()));
            *response.status_mut() = status;
            response
        }
        Err(failure) => failed(head, &view, &failure, form.as_ref().ok()),
    }
}

/// Does what an operator's form says, and records it.
async fn act_recorded(view: &View, form: &Form) -> Result<Done, Failure> {
    let action = pages::action(view, form).ok_or(Failure::NoPage)?;
    let outcome = |done: &Result<Done, Failure>| match done {
        Ok(done) => Outcome { target: done.made.clone(), ..done.outcome.into() },
        Err(failure) => failure.code().into(),
    };
    view.endpoints.trail().record(action, Box::pin(pages::act(view, form)), outcome).await
}

/// Records the refused form of an operator, also if a page of another site sent it with the operator's session.
fn record_refusal(dashboard: &Dashboard, head: &Parts, view: &View, failure: &Failure) {
    let Granted { level, who, .. } = dashboard.config.access.grant(head);
    if let Some(action) = pages::action(view, &Form::read(b"")).filter(|_| level > AccessLevel::None) {
        dashboard.endpoints.trail().record_refusal(Action { who: who.to_string(), ..action }, failure.code());
    }
}

/// A redirect, after which a reload repeats no action.
fn open(link: &str) -> Response {
    let location = HeaderValue::try_from(link).unwrap_or_else(|_| HeaderValue::from_static("../dashboard"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

fn show(head: &Parts, view: &View, content: &Content) -> Response {
    let tag = content.tag();
    let mut response = match is_known(&head.headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => document(head, shell::page(view, content, SystemTime::now().into())),
    };
    if let Ok(tag) = HeaderValue::try_from(format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `sent` is the form of an action that failed.
fn failed(head: &Parts, view: &View, failure: &Failure, sent: Option<&Form>) -> Response {
    let mut response = document(head, shell::failure(view, failure, sent, SystemTime::now().into()));
    *response.status_mut() = failure.status();
    let more = match failure.status() {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "GET, HEAD, POST")),
        _ => None,
    };
    response.headers_mut().extend(more.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

fn document(head: &Parts, page: Markup) -> Response {
    let mut response = compressed(page.into_string(), &head.headers);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// Sets the headers that all responses have, and `Retry-After` while the store or a stream is not available.
fn secure(response: &mut Response) {
    let is_unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, browsers would send `Origin: null` with the forms of these pages.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_unavailable {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
