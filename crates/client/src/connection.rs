//! Sends requests, and repeats failed ones.

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, StatusCode, Url,
    header::{self, HeaderMap, HeaderName},
};
use tokio::time::sleep;

use crate::{
    error::Error,
    problem::Problem,
    retries::{Backoff, Retries},
};

/// What all calls of a client share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    /// Headers of every request.
    pub(crate) headers: HeaderMap,
    /// Time limit of one request, without the time that the service was asked to hold it.
    pub(crate) timeout: Duration,
    pub(crate) retries: Retries,
}

/// A request that can be sent several times.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// How long the service was asked to hold the answer.
    pub(crate) hold: Duration,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: None, hold: Duration::ZERO }
    }

    /// The request in errors. User, password and query may be secret.
    pub(crate) fn name(&self) -> String {
        let Self { method, url, .. } = self;
        let origin = url.origin().ascii_serialization();
        format!("{method} {origin}{}", url.path())
    }
}

impl Connection {
    /// The address of a path below the base address. The path may have a query.
    pub(crate) fn url(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = below(&self.base, path);
        url.set_query(query);
        url
    }

    /// A request without a time limit.
    pub(crate) fn request(&self, call: &Call) -> RequestBuilder {
        let mut headers = self.headers.clone();
        headers.extend(call.headers.clone());
        let request = self.http.request(call.method.clone(), call.url.clone()).headers(headers);
        match &call.body {
            Some(body) => request.body(body.clone()),
            None => request,
        }
    }

    /// Sends a request, and repeats it while it fails temporarily.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Error> {
        let mut backoff = Backoff::new(self.retries);
        loop {
            let sent = self.send_once(&call).await;
            let retry_after = match &sent {
                Ok(answer) if answer.is_temporary() => answer.retry_after(),
                Err(error) if !error.is_builder() && !error.is_redirect() => None,
                _ => return sent.map_err(|error| unreachable(&call, error, backoff.requests() + 1)),
            };
            match backoff.fail(retry_after) {
                Some(pause) => sleep(pause).await,
                None => return sent.map_err(|error| unreachable(&call, error, backoff.requests())),
            }
        }
    }

    async fn send_once(&self, call: &Call) -> reqwest::Result<Answer> {
        let response = self.request(call).timeout(self.timeout + call.hold).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { request: call.name(), url: response.url().clone(), status, headers, body: response.bytes().await? })
    }
}

fn unreachable(call: &Call, source: reqwest::Error, requests: u32) -> Error {
    Error::Unreachable { request: call.name(), requests, source: source.without_url() }
}

/// A complete answer.
pub(crate) struct Answer {
    request: String,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn is_temporary(&self) -> bool {
        is_temporary(self.status)
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The seconds of `Retry-After`. A date counts as none.
    fn retry_after(&self) -> Option<Duration> {
        self.header(&header::RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
    }

    pub(crate) fn refused(&self) -> Error {
        let problem: Option<Problem> = serde_json::from_slice(&self.body).ok();
        Error::Refused {
            request: self.request.clone(),
            status: self.status,
            problem: problem.filter(|problem| !problem.code.is_empty() || !problem.title.is_empty()).map(Box::new),
            body: String::from_utf8_lossy(&self.body).into_owned(),
            retry_after: self.retry_after(),
        }
    }

    pub(crate) fn unexpected(&self, detail: &dyn fmt::Display) -> Error {
        Error::Unexpected { request: self.request.clone(), detail: detail.to_string() }
    }
}

/// The address of a path below another address.
pub(crate) fn below(url: &Url, path: &str) -> Url {
    let mut below = url.clone();
    below.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), path.trim_start_matches('/')));
    below
}

/// Whether a repeat may be answered differently.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}
