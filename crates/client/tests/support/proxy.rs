//! Proxies as layers: what can lie between a client and a service.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};

use super::Seen;

/// Notes each request: its path and, if it has them, the values of `Idempotency-Key` and `Last-Event-ID`.
pub(crate) fn noted(app: Router, seen: &Seen) -> Router {
    let seen = seen.clone();
    app.layer(from_fn(move |request: Request, next: Next| {
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|value| format!(" {name}={value}")).unwrap_or_default()
        };
        let line = format!("{}{}{}", request.uri(), header("idempotency-key"), header("last-event-id"));
        seen.push(format!("{} {line}", request.method()));
        next.run(request)
    }))
}

/// Answers the first submissions by these functions, which get the answer of the service. The others pass.
pub(crate) fn first_submissions(app: Router, spoil: fn(Response) -> Response, count: usize) -> Router {
    let left = Arc::new(AtomicUsize::new(count));
    app.layer(from_fn(move |request: Request, next: Next| {
        let left = left.clone();
        async move {
            let is_submission = request.method() == Method::POST && request.uri().path().starts_with("/api/");
            let spoiled = is_submission
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let response = next.run(request).await;
            if spoiled { spoil(response) } else { response }
        }
    }))
}

/// Loses the answer: the connection breaks within the body.
pub(crate) fn lose(response: Response) -> Response {
    let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
    response.map(|_| Body::from_stream(broken))
}

/// Replaces the answer by that of an overloaded proxy.
pub(crate) fn overload(_: Response) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "try again").into_response()
}

fn is_stream(request: &Request) -> bool {
    request.uri().path().ends_with("/events")
}

/// Cuts each connection of a stream within its second event.
pub(crate) fn cutting(app: Router) -> Router {
    app.layer(from_fn(async |request: Request, next: Next| {
        let cuts = is_stream(&request);
        let response = next.run(request).await;
        if !cuts || response.status() != StatusCode::OK {
            return response;
        }
        response.map(|body| {
            let mut chunks = 0;
            let cut = body.into_data_stream().flat_map(move |chunk| {
                chunks += 1;
                let chunk = chunk.map_err(std::io::Error::other);
                match chunks {
                    1 => stream::iter(vec![chunk]),
                    _ => stream::iter(vec![
                        chunk.map(|chunk| chunk.slice(..chunk.len() / 2)),
                        Err(std::io::Error::other("cut")),
                    ]),
                }
            });
            Body::from_stream(cut)
        })
    }))
}

/// Answers requests of streams with this status.
pub(crate) fn refusing(app: Router, status: StatusCode) -> Router {
    app.layer(from_fn(move |request: Request, next: Next| async move {
        if is_stream(&request) { status.into_response() } else { next.run(request).await }
    }))
}

/// Collects each response before it is passed on.
pub(crate) fn buffering(app: Router) -> Router {
    app.layer(from_fn(async |request: Request, next: Next| {
        let (head, body) = next.run(request).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        Response::from_parts(head, Body::from(body))
    }))
}
