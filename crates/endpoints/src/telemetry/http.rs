//! The layer around the library's routes: request durations by route.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use async_endpoints_telemetry::{
    Attachment,
    opentelemetry::{KeyValue, metrics::Histogram},
};
use axum::{
    extract::{MatchedPath, Request},
    http::{Method, StatusCode, Uri, uri::Scheme},
    response::Response,
};
use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::catalogue::REQUEST_DURATION;
use crate::{caller::Caller, options::Enrich};

/// Records `http.server.request.duration` by method, route and status. A request whose client disconnects before the
/// response begins is not recorded.
#[derive(Clone)]
pub(crate) struct RequestDuration(Histogram<f64>, Enrich);

impl RequestDuration {
    pub(crate) fn new(attachment: &Attachment, enrich: Enrich) -> Self {
        Self(attachment.histogram(&REQUEST_DURATION), enrich)
    }
}

impl<S> Layer<S> for RequestDuration {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, duration: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Timed<S> {
    inner: S,
    duration: RequestDuration,
}

impl<S> Service<Request> for Timed<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let began = Instant::now();
        let caller = Caller::identify(&mut request, self.duration.1);
        request.extensions_mut().insert(caller.clone());
        let (duration, method, scheme) = (self.duration.clone(), method(request.method()), scheme(request.uri()));
        let route = request.extensions().get::<MatchedPath>().cloned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            caller.echo(response.headers_mut());
            let labels = labels(method, scheme, route.as_ref(), response.status());
            duration.0.record(began.elapsed().as_secs_f64(), &labels);
            Ok(response)
        })
    }
}

fn labels(
    method: &'static str,
    scheme: &'static str,
    route: Option<&MatchedPath>,
    status: StatusCode,
) -> Vec<KeyValue> {
    let mut labels = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
        KeyValue::new("url.scheme", scheme),
    ];
    labels.extend(route.map(|route| KeyValue::new("http.route", route.as_str().to_owned())));
    if status.is_server_error() {
        labels.push(KeyValue::new("error.type", status.as_u16().to_string()));
    }
    labels
}

/// Unknown methods share a value: clients can send any.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// HTTP/2 requests carry the scheme. HTTP/1.1 requests do not, and count as `http`, even behind a proxy with TLS.
fn scheme(uri: &Uri) -> &'static str {
    if uri.scheme() == Some(&Scheme::HTTPS) { "https" } else { "http" }
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
