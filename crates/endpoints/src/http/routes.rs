//! The routers, and what all routes have in common.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, any, on},
};
use bytes::Bytes;
use futures_util::FutureExt;

#[cfg(feature = "telemetry")]
use super::metrics;
use super::{
    alerts, audit, body, bulk,
    call::Call,
    cancel, codes,
    config::HttpConfig,
    events, explain, failures, get,
    grant::AccessLevel,
    headers, health, list, logs, monitoring, openapi, ops,
    problem::Problem,
    query, request, result, retry,
    route::{Audience, Route},
    site,
    submit::SubmitHandler,
    types,
};
use crate::{
    endpoints::{AsyncEndpoints, RouteGroup},
    text::shortened,
};

impl Route {
    /// Whether a request may be held for long: a stream, or a status request that may ask for a wait.
    fn is_held(self, request: &Request) -> bool {
        match self {
            Self::Events | Self::Logs => true,
            Self::Job => request.uri().query().is_some() || request.headers().contains_key(headers::PREFER),
            _ => false,
        }
    }

    /// Fails if the caller may not use this route. Requests that another site may have made are refused as well.
    fn authorize(self, call: &Call) -> Result<(), Problem> {
        let (level, needed, is_owner) = (call.granted.level, self.level(), call.visibility.is_owner());
        let audience = self.audience(call.endpoints.options());
        let is_allowed = match audience {
            // An operator without the level changes nothing, not even what every caller may change.
            Audience::Callers => level == AccessLevel::None || level >= needed || is_owner,
            Audience::Owners => level >= needed || is_owner,
            Audience::Operators => level >= needed,
        };
        match audience {
            _ if !is_allowed => Err(call.refusal(needed)),
            // A session is for this site's own pages, also to read.
            _ if call.granted.by_session && site::is_foreign(&call.head) => Err(codes::CROSS_SITE_REQUEST.into()),
            Audience::Callers => site::check_cookies(&call.head),
            Audience::Owners | Audience::Operators => site::check(&call.head),
        }
    }

    /// Reads the body if the route has a use for one.
    async fn read(self, body: Body, headers: &HeaderMap) -> Result<Bytes, Problem> {
        match self {
            // Boxed, to keep the future of the other routes small.
            Self::Silence | Self::PreviewBulk | Self::StartBulk | Self::PauseType | Self::LimitType => {
                Box::pin(body::read(body, headers)).await
            }
            _ => {
                body::drain(body).await;
                Ok(Bytes::new())
            }
        }
    }

    /// Answers, and records what an operator changes.
    async fn answer_recorded(self, call: Call, body: Bytes) -> Result<Response, Problem> {
        let Some(action) = audit::action(self, &call, &body) else { return self.answer(call, body).await };
        let trail = call.endpoints.trail().clone();
        Box::pin(trail.record(action, self.answer(call, body), audit::outcome)).await
    }

    async fn answer(self, call: Call, body: Bytes) -> Result<Response, Problem> {
        if self.refuses_queries(call.endpoints.options()) {
            query::none(call.query())?;
        }
        match self {
            Self::List => list::list(&call).await,
            Self::Job => get::get(&call).await,
            Self::Result => result::result(&call).await,
            Self::Events => events::events(call).await,
            // The largest futures are boxed: requests of all routes, also held ones, have the size of the largest.
            Self::Logs => Box::pin(logs::logs(call)).await,
            Self::Explain => Box::pin(explain::explain(&call)).await,
            Self::Request => Box::pin(request::request(&call)).await,
            Self::Cancel => Box::pin(cancel::cancel(&call)).await,
            Self::Retry => Box::pin(retry::retry(&call)).await,
            Self::OpenApi => openapi::document(&call),
            #[cfg(feature = "telemetry")]
            Self::Metrics => metrics::metrics(&call).await,
            // The route does not exist.
            #[cfg(not(feature = "telemetry"))]
            Self::Metrics => Err(codes::INTERNAL_ERROR.into()),
            Self::JobMetrics => monitoring::jobs(&call).await,
            Self::Workers => ops::workers(&call).await,
            Self::Series => Box::pin(ops::series(&call)).await,
            Self::Types => Box::pin(types::types(&call)).await,
            Self::PauseType => Box::pin(types::pause(&call, &body)).await,
            Self::ResumeType => Box::pin(types::resume(&call)).await,
            Self::LimitType => Box::pin(types::limit(&call, &body)).await,
            Self::UnlimitType => Box::pin(types::remove_limit(&call)).await,
            Self::Failures => Box::pin(failures::failures(&call)).await,
            Self::Alerts => Box::pin(alerts::alerts(&call)).await,
            Self::Silence => Box::pin(alerts::silence(&call, &body)).await,
            Self::Audit => audit::audit(&call).await,
            Self::Bulks => Box::pin(bulk::list(&call)).await,
            Self::Bulk => Box::pin(bulk::get(&call)).await,
            Self::PreviewBulk => Box::pin(bulk::preview(&call, &body)).await,
            Self::StartBulk => Box::pin(bulk::start(&call, &body)).await,
            Self::StopBulk => Box::pin(bulk::stop(&call)).await,
            Self::EndSilence => Box::pin(alerts::end_silence(&call)).await,
            Self::TestAlerts => Ok(Box::pin(alerts::test(&call)).await),
            Self::Health => Ok(health::answer(&call, call.endpoints.health().all().await)),
            Self::Ready => Ok(health::answer(&call, call.endpoints.health().ready().await)),
            Self::Live => Ok(health::answer(&call, call.endpoints.health().live())),
        }
    }
}

/// Makes the router of one group of routes.
pub(crate) fn routes(endpoints: &AsyncEndpoints, config: &Arc<HttpConfig>, group: RouteGroup) -> Router {
    let router = match group {
        RouteGroup::Submit => submit_routes(endpoints, config),
        RouteGroup::Jobs => own_routes(endpoints, config, group, Route::JOBS.into_iter()),
        RouteGroup::Monitoring => {
            config.has_monitoring_routes.store(true, Ordering::Relaxed);
            let routes = Route::MONITORING.into_iter().filter(|route| route.exists(endpoints));
            own_routes(endpoints, config, group, routes)
        }
    };
    // Measures the library's routes only; a request that matches none of them belongs to the application.
    if router.has_routes() { router.route_layer(endpoints.measured().layer()) } else { router }
}

/// One route per declared path, with all methods of that path.
fn submit_routes(endpoints: &AsyncEndpoints, config: &Arc<HttpConfig>) -> Router {
    config.has_submit_routes.store(true, Ordering::Relaxed);
    let mut by_path: BTreeMap<&str, MethodRouter> = BTreeMap::new();
    for declared in &config.endpoints {
        let Some(submit) = SubmitHandler::new(endpoints, config, declared) else { continue };
        let submit = Arc::new(submit);
        let handler = move |request| {
            let submit = submit.clone();
            async move {
                let mut response = submit.respond(request).await;
                close_on_shutdown(&submit.endpoints, &mut response);
                response
            }
        };
        let method = on(filter(&declared.method), handler);
        let method = declared.layers.iter().fold(method, |method, layer| layer(method));
        let methods = by_path.remove(&*declared.path).unwrap_or_default();
        by_path.insert(&declared.path, methods.merge(method));
    }
    let routes = by_path.into_iter().map(|(path, methods)| (path, with_fallback(methods)));
    routes.fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

fn own_routes(
    endpoints: &AsyncEndpoints,
    config: &Arc<HttpConfig>,
    group: RouteGroup,
    routes: impl Iterator<Item = Route>,
) -> Router {
    let mut by_path: BTreeMap<Cow<'static, str>, MethodRouter> = BTreeMap::new();
    for route in routes {
        let (endpoints, config) = (endpoints.clone(), config.clone());
        let path = route.path_below(&config.jobs_path);
        let handler = move |request| answer(route, endpoints.clone(), config.clone(), request);
        let methods = by_path.remove(&path).unwrap_or_default();
        by_path.insert(path, methods.on(filter(&route.method()), handler));
    }
    let known =
        by_path.into_iter().fold(Router::new(), |router, (path, methods)| router.route(&path, with_fallback(methods)));
    let unknown = Route::unknown_paths(group, &config.jobs_path, endpoints.has_alerts());
    unknown.into_iter().fold(known, |router, path| router.route(&path, any(unknown_path)))
}

/// Answers a request of one of the library's own routes.
async fn answer(route: Route, endpoints: AsyncEndpoints, config: Arc<HttpConfig>, request: Request) -> Response {
    let rights_vary = config.access.takes_token();
    let mut response = answer_or_problem(route, &endpoints, config, request).await;
    if rights_vary {
        // An operator's document has more members than a caller's of the same version.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Authorization"));
        if cfg!(feature = "dashboard") {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Cookie"));
        }
    }
    // A job changes, and may belong to one owner: caches must revalidate, and shared caches must not store it.
    let cached = HeaderValue::from_static("private, no-cache");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(cached);
    close_on_shutdown(&endpoints, &mut response);
    response
}

/// Makes clients of a process that shuts down open a new connection, which may reach another process.
fn close_on_shutdown(endpoints: &AsyncEndpoints, response: &mut Response) {
    if endpoints.is_shutting_down() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn answer_or_problem(
    route: Route,
    endpoints: &AsyncEndpoints,
    config: Arc<HttpConfig>,
    mut request: Request,
) -> Response {
    if route.is_held(&request) {
        headers::copy_texts(&mut request);
    }
    let (call, body) = Call::of(endpoints, config.clone(), request).await;
    let head = call.head.clone();
    // Before any refusal: a client that is still writing does not read the response.
    let body = route.read(body, &head.headers).await;
    // The application's rules and response hooks may panic; the client still gets a response.
    let answered = AssertUnwindSafe(async {
        let call = call.identified();
        route.authorize(&call).inspect_err(|refusal| audit::record_refusal(route, &call, refusal))?;
        route.answer_recorded(call, body?).await
    });
    let problem = match answered.catch_unwind().await {
        Ok(Ok(response)) => return response,
        Ok(Err(problem)) => problem.traced(),
        Err(panic) => return config.responses.panicked(&head, panic).await,
    };
    let (response, hooks) = (|| problem.clone().into_response(), &config.responses);
    match route {
        _ if problem.status().is_server_error() => {
            hooks.apply(response, |hooks, response| hooks.internal_error(&head, &problem, response)).await
        }
        Route::Job | Route::Cancel => {
            hooks.apply(response, |hooks, response| hooks.status(&head, Err(&problem), response)).await
        }
        _ => response(),
    }
}

/// Answers other methods with a problem object too.
fn with_fallback(methods: MethodRouter) -> MethodRouter {
    methods.fallback(async |request: Request| {
        let detail =
            format!("{} is not supported here; the Allow header lists the supported methods.", request.method());
        unrouted(request, codes::METHOD_NOT_ALLOWED.with_detail(detail)).await
    })
}

/// Answers a path that no route has.
async fn unknown_path(request: Request) -> Problem {
    let detail = format!("No route has the path {:?}.", shortened(request.uri().path()));
    unrouted(request, codes::ROUTE_NOT_FOUND.with_detail(detail)).await
}

/// The answer to a request that reaches no route. Caches may store a 404 or 405 unless it says otherwise.
async fn unrouted(request: Request, problem: Problem) -> Problem {
    body::drain(request.into_body()).await;
    problem.traced().with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
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
