//! The layer around the library's routes: the server span, its scope, the duration of each request, and the headers that all
//! responses have in common.

use std::{
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use async_endpoints_telemetry::{
    Attachment, Scope, Telemetry,
    opentelemetry::{
        Context, KeyValue,
        metrics::Histogram,
        trace::{SpanBuilder, SpanKind, TraceContextExt},
    },
    trace::{Tracing, extract_headers},
};
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, Method, StatusCode, Uri, Version, header, uri::Scheme},
    response::Response,
};
use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    catalogue::REQUEST_DURATION,
    scope::{self, with_request_id},
    semconv as s, spans,
};
use crate::{
    bodiless::without_length,
    caller::Caller,
    options::{Enrich, Options},
};

/// Runs each request in a scope, as a span `METHOD /route`, and records `http.server.request.duration` by method, route and
/// status. A request whose client disconnects before the response begins is not measured.
#[derive(Clone)]
pub(crate) struct Requests {
    /// None if nothing is measured.
    duration: Option<Histogram<f64>>,
    tracing: Tracing,
    enrich: Enrich,
    /// Whether trace contexts are read from requests.
    propagates: bool,
    /// Whether the application lets the header `user-agent` be captured.
    user_agent: bool,
}

impl Requests {
    pub(crate) fn new(attachment: &Attachment, telemetry: &Telemetry, options: &Options) -> Self {
        let user_agent = options.captured_headers.iter().any(|name| name == header::USER_AGENT.as_str());
        Self {
            duration: attachment.measures().then(|| attachment.histogram(&REQUEST_DURATION)),
            tracing: telemetry.tracing().clone(),
            enrich: options.enrich,
            propagates: telemetry.propagates(),
            user_agent,
        }
    }

    /// Starts the server span: below the application's own span, if there is one, else below the caller's.
    fn begin(&self, request: &Request, method: &'static str, route: Option<&MatchedPath>, caller: &Caller) -> Scope {
        let parent = self.parent(request.headers());
        let context = self.tracing.start(&parent, &[], || describe(request, method, route));
        let context = with_request_id(context, caller, &self.tracing);
        if context.span().is_recording() {
            context.span().set_attributes(self.details(request, method, caller));
        }
        scope::request(context, caller)
    }

    /// The context of a request that passed no layer of this library.
    pub(crate) fn context(&self, headers: &HeaderMap, caller: &Caller) -> Context {
        with_request_id(self.parent(headers), caller, &self.tracing)
    }

    /// The application's own span, if there is one, else the caller's.
    fn parent(&self, headers: &HeaderMap) -> Context {
        let current = Context::current();
        let remote = || extract_headers(headers).filter(|_| self.propagates);
        if current.has_active_span() { current } else { remote().unwrap_or(current) }
    }

    /// Attributes that samplers seldom read.
    fn details(&self, request: &Request, method: &'static str, caller: &Caller) -> impl Iterator<Item = KeyValue> {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().cloned().or_else(|| host?.parse().ok());
        let original = (method != request.method().as_str()).then(|| request.method().to_string());
        let agent = request.headers().get(header::USER_AGENT).filter(|_| self.user_agent);
        let agent = agent.and_then(|agent| agent.to_str().ok()).map(str::to_owned);
        let port = authority.as_ref().and_then(|authority| authority.port_u16());
        let text = |key: &'static str, value: Option<String>| value.map(|value| KeyValue::new(key, value));
        [
            text(s::SERVER_ADDRESS, authority.map(|authority| authority.host().to_owned())),
            port.map(|port| KeyValue::new(s::SERVER_PORT, i64::from(port))),
            version(request.version()).map(|version| KeyValue::new(s::PROTOCOL_VERSION, version)),
            text(s::HTTP_METHOD_ORIGINAL, original),
            text(s::CLIENT_ADDRESS, caller.client_address.clone()),
            text(s::USER_AGENT, agent),
        ]
        .into_iter()
        .flatten()
    }
}

impl<S> Layer<S> for Requests {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, requests: Arc::new(self.clone()) }
    }
}

#[derive(Clone)]
pub(crate) struct Observed<S> {
    inner: S,
    requests: Arc<Requests>,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let began = Instant::now();
        let (requests, method, scheme) = (self.requests.clone(), method(request.method()), scheme(request.uri()));
        let route = request.extensions().get::<MatchedPath>().cloned();
        let caller = Caller::identify(&mut request, requests.enrich);
        let scope = requests.begin(&request, method, route.as_ref(), &caller);
        request.extensions_mut().insert(caller.clone());
        let answer = scope.in_scope(|| self.inner.call(request));
        Box::pin(async move {
            let mut response = scope.run(answer).await?;
            caller.echo(response.headers_mut());
            without_length(&mut response);
            if let Some(duration) = &requests.duration {
                let labels = labels(method, scheme, route.as_ref(), response.status());
                duration.record(began.elapsed().as_secs_f64(), &labels);
            }
            end(scope.context(), response.status());
            Ok(response)
        })
    }
}

fn describe(request: &Request, method: &'static str, route: Option<&MatchedPath>) -> SpanBuilder {
    let verb = if method == OTHER_METHOD { "HTTP" } else { method };
    let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {}", route.as_str()));
    let route = route.map(|route| KeyValue::new(s::HTTP_ROUTE, route.as_str().to_owned()));
    let attributes = [
        KeyValue::new(s::HTTP_METHOD, method),
        KeyValue::new(s::URL_PATH, request.uri().path().to_owned()),
        KeyValue::new(s::URL_SCHEME, scheme(request.uri())),
    ];
    SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes.into_iter().chain(route))
}

/// Ends the server span. Responses from 500 on are errors of the server; others are not.
fn end(context: &Context, status: StatusCode) {
    let span = context.span();
    if span.is_recording() {
        span.set_attribute(KeyValue::new(s::HTTP_STATUS, i64::from(status.as_u16())));
        if status.is_server_error() {
            spans::fail(context, status.as_u16().to_string());
        }
        span.end();
    }
}

fn labels(
    method: &'static str,
    scheme: &'static str,
    route: Option<&MatchedPath>,
    status: StatusCode,
) -> Vec<KeyValue> {
    let mut labels = vec![
        KeyValue::new(s::HTTP_METHOD, method),
        KeyValue::new(s::HTTP_STATUS, i64::from(status.as_u16())),
        KeyValue::new(s::URL_SCHEME, scheme),
    ];
    labels.extend(route.map(|route| KeyValue::new(s::HTTP_ROUTE, route.as_str().to_owned())));
    if status.is_server_error() {
        labels.push(KeyValue::new(s::ERROR_TYPE, status.as_u16().to_string()));
    }
    labels
}

const OTHER_METHOD: &str = "_OTHER";

/// Unknown methods share a value: clients can send any.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER_METHOD)
}

/// HTTP/2 requests carry the scheme. HTTP/1.1 requests do not, and count as `http`, even behind a proxy with TLS.
fn scheme(uri: &Uri) -> &'static str {
    if uri.scheme() == Some(&Scheme::HTTPS) { "https" } else { "http" }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        Version::HTTP_3 => Some("3"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_scheme_is_http() {
        for (uri, expected) in
            [("/jobs", "http"), ("https://h/jobs", "https"), ("http://h/jobs", "http"), ("x://h", "http")]
        {
            assert_eq!(scheme(&uri.parse().expect("a URI")), expected, "{uri}");
        }
    }
}
