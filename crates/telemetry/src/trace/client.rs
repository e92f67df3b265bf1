//! Outgoing requests of reqwest.

use http::{HeaderMap, StatusCode};
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};
use reqwest::{Error, Request, RequestBuilder, Response, Url};

use super::{Tracing, inject::inject_context, inject_headers};

/// Sets `traceparent` and `tracestate` of the current context in a request.
///
/// ```no_run
/// # use async_endpoints_telemetry::trace::inject_request;
/// # async fn call(client: reqwest::Client) -> reqwest::Result<()> {
/// inject_request(client.get("http://127.0.0.1:8081/stock")).send().await?;
/// # Ok(()) }
/// ```
pub fn inject_request(request: RequestBuilder) -> RequestBuilder {
    let mut headers = HeaderMap::new();
    inject_headers(&mut headers);
    request.headers(headers)
}

impl Tracing {
    /// Sends a request as a client span below the current one, with the span's context in its headers. Neither query strings
    /// nor user names of the URL are recorded.
    ///
    /// # Errors
    ///
    /// The errors of [`RequestBuilder::send`], without the URL: its query can hold a secret, and errors are logged.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let (client, request) = request.build_split();
        let mut request = request.map_err(Error::without_url)?;
        let context = Context::map_current(|parent| self.start(parent, &[], || describe(&request)));
        inject_context(&context, request.headers_mut());
        let answer = client.execute(request).with_context(context.clone()).await.map_err(Error::without_url);
        end(&context, &answer);
        answer
    }
}

fn describe(request: &Request) -> SpanBuilder {
    let url = request.url();
    let method = request.method().to_string();
    let port = url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port)));
    let host = url.host_str().map(|host| KeyValue::new("server.address", host.to_owned()));
    let attributes =
        [KeyValue::new("http.request.method", method.clone()), KeyValue::new("url.full", without_secrets(url.clone()))];
    let attributes = attributes.into_iter().chain(host).chain(port);
    SpanBuilder::from_name(method).with_kind(SpanKind::Client).with_attributes(attributes)
}

fn without_secrets(mut url: Url) -> String {
    url.set_query(None);
    // These fail for URLs without a host, which have no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn end(context: &Context, answer: &Result<Response, Error>) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let status = answer.as_ref().ok().map(Response::status);
    span.set_attributes(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status.as_u16()))));
    if let Some(error_type) = error_type(answer) {
        span.set_status(Status::error(error_type.clone()));
        span.set_attribute(KeyValue::new("error.type", error_type));
    }
    span.end();
}

fn error_type(answer: &Result<Response, Error>) -> Option<String> {
    let is_error = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    match answer {
        Ok(response) => Some(response.status()).filter(is_error).map(|status| status.as_u16().to_string()),
        Err(error) if error.is_timeout() => Some("timeout".to_owned()),
        Err(error) if error.is_connect() => Some("connect".to_owned()),
        Err(_) => Some("_OTHER".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returned_error_has_no_url() {
        let request = reqwest::Client::new().get("http://127.0.0.1:1/stock?token=s3cret");
        let error = Tracing::ids_only().send(request).await.expect_err("nothing listens");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.push_str(&error.to_string());
            source = error.source();
        }
        assert!(error.is_connect() && !text.contains("s3cret") && !text.contains("stock"), "{text}");
    }

    #[test]
    fn recorded_url_has_no_secrets() {
        let url = |text: &str| without_secrets(text.parse().expect("a URL"));
        assert_eq!(url("https://me:pw@h:1/a?token=x#f"), "https://h:1/a#f");
        assert_eq!(url("http://h/a"), "http://h/a");
    }
}
