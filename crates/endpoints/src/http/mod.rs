//! The HTTP face: routers, requests in, answers out. Must not know workers or drivers.
//!
//! | file | answers |
//! |---|---|
//! | `submit` | the paths that the application declares |
//! | `follow` | `GET /jobs/{id}`, at once or held until it changed |
//! | `result` | `GET /jobs/{id}/result` |
//! | `cancel` | `POST /jobs/{id}/cancel` |
//! | `headers`, `body` | what is read from requests |
//! | `job`, `problem` | what answers look like |
//! | `server` | connections, and their end |

mod body;
mod cancel;
mod follow;
mod headers;
mod job;
mod problem;
mod result;
mod server;
mod submit;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::Method,
    routing::{MethodFilter, MethodRouter, get, on, post},
};

pub(crate) use self::server::serve;
use self::{problem::Problem, submit::Accepting};
use crate::{AsyncEndpoints, endpoint::Endpoint};

/// One route for each declared path, with all its methods.
pub(crate) fn submit_routes<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints) -> Router<S> {
    let mut by_path: BTreeMap<&str, MethodRouter<S>> = BTreeMap::new();
    for endpoint in endpoints.endpoints() {
        // The name was checked when the endpoints were built.
        let Some(accepting) = Accepting::new(endpoints, endpoint) else { continue };
        let accepting = Arc::new(accepting);
        let handler = move |request| submit::submit(accepting.clone(), request);
        let methods = by_path.remove(&*endpoint.path).unwrap_or_default();
        by_path.insert(&endpoint.path, methods.merge(on(filter(endpoint), handler)));
    }
    by_path.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, refusing(methods)))
}

pub(crate) fn job_routes<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints) -> Router<S> {
    let (follow, result, cancel) = (endpoints.clone(), endpoints.clone(), endpoints.clone());
    Router::new()
        .route("/jobs/{id}", refusing(get(move |request| follow::job(follow.clone(), request))))
        .route("/jobs/{id}/result", refusing(get(move |request| result::result(result.clone(), request))))
        .route("/jobs/{id}/cancel", refusing(post(move |request| cancel::cancel(cancel.clone(), request))))
}

/// Other methods get a problem object as well.
fn refusing<S: Clone + Send + Sync + 'static>(methods: MethodRouter<S>) -> MethodRouter<S> {
    methods.fallback(async |request: Request| {
        let (head, unwanted) = request.into_parts();
        body::drain(unwanted).await;
        Problem::method_not_allowed(&head.method).traced(headers::trace(&head.headers).as_ref())
    })
}

fn filter(endpoint: &Endpoint) -> MethodFilter {
    match endpoint.method {
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::POST,
    }
}
