//! A submission that is not sent yet.

use std::{fmt, future::IntoFuture, marker::PhantomData, sync::Arc};

use async_endpoints_core::JobId;
use futures_util::future::BoxFuture;
use reqwest::{
    Method, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    connection::{Answer, Call, Connection},
    error::Error,
    handle::JobHandle,
    headers,
};

const JOB_ID: HeaderName = HeaderName::from_static("x-async-job-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A submission. Awaiting it sends the request and returns a [`JobHandle`].
///
/// Each submission has an idempotency key, by default a random one, so that a repeat of its request makes no second job.
#[must_use = "await it to send it"]
pub struct Submission<Res> {
    connection: Arc<Connection>,
    method: Method,
    path: String,
    headers: Result<HeaderMap, Error>,
    body: Result<Vec<u8>, Error>,
    result: PhantomData<fn() -> Res>,
}

impl<Res> Submission<Res> {
    pub(crate) fn new(connection: Arc<Connection>, method: Method, path: &str, body: Result<Vec<u8>, Error>) -> Self {
        let submission = Self {
            connection,
            method,
            path: path.to_owned(),
            headers: Ok(HeaderMap::new()),
            body,
            result: PhantomData,
        };
        submission.idempotency_key(&Uuid::new_v4().to_string())
    }

    /// Sets the idempotency key: 1 to 255 visible ASCII characters. A later submission with the same key, also by another
    /// process, finds the same job. Another request under this key is refused with `IDEMPOTENCY_CONFLICT`.
    pub fn idempotency_key(self, key: &str) -> Self {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Sets a header of this request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = self.headers.and_then(|headers| headers::with(headers, name, value));
        self
    }

    /// Sets the method, for an endpoint that is not declared for `POST`.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    async fn send(self) -> Result<JobHandle<Res>, Error> {
        let mut call = Call::new(self.method, self.connection.url(&self.path));
        call.headers = self.headers?;
        call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call.body = Some(self.body?.into());
        let answer = self.connection.send(call).await?;
        if !answer.status.is_success() {
            return Err(answer.refused());
        }
        let (id, url) = (id(&answer)?, location(&answer)?);
        let replayed = answer.header(&REPLAYED) == Some("true");
        Ok(JobHandle::new(self.connection, id, url, replayed))
    }
}

fn id(answer: &Answer) -> Result<JobId, Error> {
    let id = answer.header(&JOB_ID).and_then(|id| id.parse().ok());
    id.ok_or_else(|| answer.unexpected(&"no job id in the header X-Async-Job-Id"))
}

/// The address of the job. It must be at the same service, because the token of the service is sent to it.
fn location(answer: &Answer) -> Result<Url, Error> {
    let location = answer.header(&header::LOCATION).and_then(|location| answer.url.join(location).ok());
    let location = location.filter(|location| location.origin() == answer.url.origin());
    location.ok_or_else(|| answer.unexpected(&"the header Location has no address at this service"))
}

impl<Res: DeserializeOwned + 'static> IntoFuture for Submission<Res> {
    type Output = Result<JobHandle<Res>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Without body and headers, which may be secret.
impl<Res> fmt::Debug for Submission<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}
