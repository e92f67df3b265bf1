//! The HTTP face: routers, requests in, answers out. Must not know workers or drivers.
//!
//! | file | answers |
//! |---|---|
//! | `submit` | the paths that the application declares |
//! | `list`, `follow`, `result`, `events`, `logs`, `cancel`, `retry` | the routes of jobs, one each |
//! | `openapi` | what all of them are, as a document |
//! | `monitoring` | the routes of figures |
//! | `call` | what every route needs of its request |
//! | `access` | who may do what |
//! | `headers`, `body` | what is read from requests |
//! | `document`, `job`, `problem`, `responses` | what answers look like |
//! | `server`, `socket` | connections, and their end |

mod access;
mod body;
mod call;
mod cancel;
mod document;
mod events;
mod follow;
mod headers;
mod job;
mod list;
mod logs;
mod monitoring;
mod openapi;
mod problem;
mod responses;
mod result;
mod retry;
mod server;
mod socket;
mod submit;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_endpoints_core::job::TraceContext;
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use futures_util::FutureExt;

pub(crate) use self::{
    access::OwnerRule,
    responses::Unchanged,
    server::{Limits, serve},
};
pub use self::{
    access::{Access, Owner},
    document::JobDocument,
    problem::Problem,
    responses::Responses,
};
use self::{call::Call, submit::Accepting};
use crate::{AsyncEndpoints, error::panic_message, telemetry::events as log};

/// How these endpoints are shown: what the application says once for all its routes.
pub(crate) struct Face {
    pub(crate) access: Access,
    pub(crate) owner: Option<OwnerRule>,
    pub(crate) responses: Box<dyn Responses>,
    pub(crate) base_path: Option<String>,
    /// Set when the submit routes are made: a process that does not accept does not document them.
    pub(crate) accepts: AtomicBool,
}

impl Default for Face {
    fn default() -> Self {
        let (access, responses) = (Access::loopback(), Box::new(Unchanged));
        Self { access, owner: None, responses, base_path: None, accepts: AtomicBool::new(false) }
    }
}

/// The routes of jobs, and those of monitoring. Router, document, reserved paths and tests are made from these lists.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    List,
    Job,
    Result,
    Events,
    Logs,
    Cancel,
    Retry,
    Document,
    Metrics,
    JobMetrics,
}

impl Operation {
    pub(crate) const ALL: [Self; 8] =
        [Self::List, Self::Job, Self::Result, Self::Events, Self::Logs, Self::Cancel, Self::Retry, Self::Document];

    pub(crate) const MONITORING: [Self; 2] = [Self::Metrics, Self::JobMetrics];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::List => "/jobs",
            Self::Job => "/jobs/{id}",
            Self::Result => "/jobs/{id}/result",
            Self::Events => "/jobs/{id}/events",
            Self::Logs => "/jobs/{id}/logs",
            Self::Cancel => "/jobs/{id}/cancel",
            Self::Retry => "/jobs/{id}/retry",
            Self::Document => "/openapi.json",
            Self::Metrics => "/metrics",
            Self::JobMetrics => "/metrics/jobs",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Cancel | Self::Retry => Method::POST,
            _ => Method::GET,
        }
    }

    const fn is_for_operators(self) -> bool {
        match self {
            Self::List | Self::Retry | Self::Metrics | Self::JobMetrics => true,
            Self::Job | Self::Result | Self::Events | Self::Logs | Self::Cancel | Self::Document => false,
        }
    }

    async fn answer(self, call: Call) -> Result<Response, Problem> {
        match self {
            Self::List => list::list(&call).await,
            Self::Job => follow::job(&call).await,
            Self::Result => result::result(&call).await,
            Self::Events => events::events(call).await,
            Self::Logs => logs::logs(call).await,
            Self::Cancel => cancel::cancel(&call).await,
            Self::Retry => retry::retry(&call).await,
            Self::Document => openapi::document(&call),
            Self::Metrics => monitoring::metrics(&call).await,
            Self::JobMetrics => monitoring::jobs(&call).await,
        }
    }
}

/// One route for each declared path, with all its methods.
pub(crate) fn submit_routes<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints) -> Router<S> {
    endpoints.face().accepts.store(true, Ordering::Relaxed);
    let mut by_path: BTreeMap<&str, MethodRouter> = BTreeMap::new();
    for (place, declared) in endpoints.endpoints().iter().enumerate() {
        let Some(accepting) = Accepting::new(endpoints, place) else { continue };
        let accepting = Arc::new(accepting);
        let handler = move |request| {
            let accepting = accepting.clone();
            async move {
                let mut response = submit::submit(&accepting, request).await;
                last(accepting.endpoints(), &mut response);
                response
            }
        };
        let method = on(filter(&declared.method), handler);
        let method = declared.layers.iter().fold(method, |method, layer| layer(method));
        let methods = by_path.remove(&*declared.path).unwrap_or_default();
        by_path.insert(&declared.path, methods.merge(method));
    }
    let routes = by_path.into_iter().map(|(path, methods)| (path, refusing(methods)));
    measured(endpoints, routes.fold(Router::new(), |router, (path, methods)| router.route(path, methods)))
}

pub(crate) fn job_routes<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints) -> Router<S> {
    own_routes(endpoints, Operation::ALL.into_iter())
}

/// Without telemetry, or with a provider that is the application's own, there is nothing to scrape.
pub(crate) fn monitoring_routes<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints) -> Router<S> {
    let is_there = |operation: &Operation| *operation != Operation::Metrics || endpoints.is_scraped();
    own_routes(endpoints, Operation::MONITORING.into_iter().filter(is_there))
}

fn own_routes<S: Clone + Send + Sync + 'static>(
    endpoints: &AsyncEndpoints,
    operations: impl Iterator<Item = Operation>,
) -> Router<S> {
    let routes = operations.map(|operation| {
        let endpoints = endpoints.clone();
        let handler = move |request| answer(operation, endpoints.clone(), request);
        (operation.path(), refusing(on(filter(&operation.method()), handler)))
    });
    measured(endpoints, routes.fold(Router::new(), |router, (path, methods)| router.route(path, methods)))
}

/// The routes with whatever measures them.
fn measured<S: Clone + Send + Sync + 'static>(endpoints: &AsyncEndpoints, router: Router<S>) -> Router<S> {
    match endpoints.measured() {
        // Of the routes alone: what they do not match is the application's.
        Some(measured) if router.has_routes() => router.route_layer(measured.layer()),
        _ => router,
    }
}

/// The answer of a route of jobs, and what is the same for all of them.
async fn answer(operation: Operation, endpoints: AsyncEndpoints, request: Request) -> Response {
    let stopping = endpoints.clone();
    let mut response = answer_any(operation, endpoints, request).await;
    // A job changes, and may be its owner's alone: whoever keeps it asks again, and nobody keeps it for others.
    let cached = HeaderValue::from_static("private, no-cache");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(cached);
    last(&stopping, &mut response);
    response
}

/// Who asks a process that stops should ask another.
fn last(endpoints: &AsyncEndpoints, response: &mut Response) {
    if endpoints.is_shutting_down() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Answers, whatever happens.
async fn answer_any(operation: Operation, endpoints: AsyncEndpoints, request: Request) -> Response {
    let (call, body) = Call::of(&endpoints, request).await;
    let (head, trace) = (call.head.clone(), call.trace.clone());
    body::drain(body).await;
    // Rules and replaced answers are the application's and may panic; its clients still get an answer.
    let answered = AssertUnwindSafe(async {
        let call = call.identified();
        if operation.is_for_operators() {
            call.endpoints.face().access.check(&call.head)?;
        }
        operation.answer(call).await
    });
    let problem = match answered.catch_unwind().await {
        Ok(Ok(response)) => return response,
        Ok(Err(problem)) => problem.traced(trace.as_ref()),
        Err(panic) => return panicked(&endpoints, &head, &*panic, trace.as_ref()),
    };
    let responses = &endpoints.face().responses;
    replaced(
        || problem.clone().into_response(),
        |answer| match operation {
            _ if problem.status().is_server_error() => responses.internal_error(&head, &problem, answer),
            Operation::Job | Operation::Cancel => responses.status(&head, Err(&problem), answer),
            _ => answer,
        },
    )
}

/// The answer when the application's own code panicked.
fn panicked(
    endpoints: &AsyncEndpoints,
    head: &Parts,
    panic: &(dyn Any + Send),
    trace: Option<&TraceContext>,
) -> Response {
    log::internal("the application's code panicked while a request was answered", &panic_message(panic));
    let problem = Problem::internal().traced(trace);
    let responses = &endpoints.face().responses;
    replaced(|| problem.clone().into_response(), |answer| responses.internal_error(head, &problem, answer))
}

/// The application's answer in place of ours; ours if that panics: a job that is stored is told, whatever else fails.
fn replaced(ours: impl Fn() -> Response, replace: impl FnOnce(Response) -> Response) -> Response {
    catch_unwind(AssertUnwindSafe(|| replace(ours()))).unwrap_or_else(|panic| {
        log::internal("the application's responses panicked", &panic_message(&*panic));
        ours()
    })
}

/// Other methods get a problem object as well.
fn refusing<S: Clone + Send + Sync + 'static>(methods: MethodRouter) -> MethodRouter<S> {
    let methods = methods.fallback(async |request: Request| {
        let (head, unwanted) = request.into_parts();
        body::drain(unwanted).await;
        Problem::method_not_allowed(&head.method).traced(headers::trace(&head.headers).as_ref())
    });
    methods.with_state(())
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        Method::GET => MethodFilter::GET,
        _ => MethodFilter::POST,
    }
}
