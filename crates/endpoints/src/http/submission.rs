//! A request as an application's validators see it, before it becomes a job.

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use async_endpoints_core::Priority;
use axum::{
    http::{Extensions, HeaderMap, Method, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{body, problem::Problem};
use crate::{
    envelope::RequestParts,
    json::{self, Misfit},
};

/// A request that is about to be stored as a job.
pub struct Submission<Req> {
    request: Req,
    received: ReceivedRequest,
    overrides: SubmitOverrides,
}

/// The request around its body.
#[derive(Debug)]
pub(super) struct ReceivedRequest {
    pub(super) head: Arc<Parts>,
    pub(super) parts: RequestParts,
}

/// What a validator sets for one job, in place of the job type's rules and of captured headers.
#[derive(Debug, Default)]
pub(super) struct SubmitOverrides {
    pub(super) priority: Option<Priority>,
    pub(super) delay: Option<Duration>,
    pub(super) key: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

impl<Req> Submission<Req> {
    /// The body. The job stores the body as it was sent; a validator cannot change it.
    pub fn request(&self) -> &Req {
        &self.request
    }

    /// All request headers, not only the captured ones.
    pub fn headers(&self) -> &HeaderMap {
        &self.received.head.headers
    }

    /// The text of a header; `None` if it is missing or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// A path parameter.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        value(&self.received.parts.path, name)
    }

    /// A query parameter; the first one with this name.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        value(&self.received.parts.query, name)
    }

    /// All values of a query parameter: `?tag=a&tag=b` has two.
    pub fn query_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let query = self.received.parts.query.iter();
        query.filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Request extensions, set by the application's layers.
    pub fn extensions(&self) -> &Extensions {
        &self.received.head.extensions
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.received.head.method
    }

    /// The URI, without the prefix that the endpoint is mounted under.
    pub fn uri(&self) -> &Uri {
        &self.received.head.uri
    }

    /// Sets the job's priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.overrides.priority = Some(priority);
        self
    }

    /// Sets the job's delay: it starts no earlier than this time after it was accepted.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.overrides.delay = Some(delay);
        self
    }

    /// Sets the idempotency key: any text, in place of the client's key. All requests with this key, owner and job type get
    /// the job of the first one, whatever their bodies, for example one job per customer and day:
    ///
    /// ```
    /// # use async_endpoints::{Problem, Submission};
    /// # #[derive(serde::Deserialize)] struct Export { customer: u64 }
    /// # fn today() -> String { "2026-12-01".to_owned() }
    /// async fn once_a_day(export: Submission<Export>) -> Result<Submission<Export>, Problem> {
    ///     let key = format!("{}/{}", export.request().customer, today());
    ///     Ok(export.idempotency_key(key))
    /// }
    /// ```
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.overrides.key = Some(key.into());
        self
    }

    /// Sets a header for the handler (`ctx.header(name)`), replacing the client's; for example the user that a layer
    /// authenticated. Counts towards the 8 KiB limit of captured headers.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.overrides.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }
}

impl<Req: fmt::Debug> fmt::Debug for Submission<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, received, overrides } = self;
        f.debug_struct("Submission")
            .field("request", request)
            .field("uri", &received.head.uri)
            .field("overrides", overrides)
            .finish_non_exhaustive()
    }
}

fn value<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// How an endpoint checks a body.
pub(super) enum Check {
    /// The body must have the shape of the request type. An error names the field.
    Shape(fn(&str) -> Result<(), Misfit>),
    /// The application's validator must accept the request too.
    Validator(Arc<Validate>),
}

pub(super) type Validate =
    dyn Fn(&str, ReceivedRequest) -> BoxFuture<'static, Result<(SubmitOverrides, RequestParts), Refusal>> + Send + Sync;

/// The error response to a submission.
pub(super) enum Refusal {
    Problem(Problem),
    /// A validator's response other than a problem.
    Response(Box<Response>),
}

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl Refusal {
    fn of_validator<E: IntoResponse + 'static>(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Problem>() {
            Some(problem) => Self::Problem(problem.clone()),
            None => Self::Response(Box::new(error.into_response())),
        }
    }
}

impl Check {
    pub(super) fn validator<Req, F, Fut, E>(bodiless: bool, validate: F) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        F: Fn(Submission<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Submission<Req>, E>> + Send,
        E: IntoResponse + 'static,
    {
        let validate = Arc::new(validate);
        Self::Validator(Arc::new(move |text, received| {
            let read = match bodiless {
                true => json::check_syntax(text).and_then(|()| json::read_with_path::<Req>("null")),
                false => json::read_with_path::<Req>(text),
            };
            let read = read.map_err(|misfit| body::parse_problem(text, &misfit));
            let validate = validate.clone();
            Box::pin(async move {
                let request = read?;
                let submission = Submission { request, received, overrides: SubmitOverrides::default() };
                let Submission { received, overrides, .. } =
                    validate(submission).await.map_err(Refusal::of_validator)?;
                Ok((overrides, received.parts))
            })
        }))
    }

    /// Checks a body; returns the validator's overrides and the request's parts.
    pub(super) async fn run(
        &self,
        text: &str,
        received: ReceivedRequest,
    ) -> Result<(SubmitOverrides, RequestParts), Refusal> {
        match self {
            Self::Shape(fits) => {
                fits(text).map_err(|misfit| body::parse_problem(text, &misfit))?;
                Ok((SubmitOverrides::default(), received.parts))
            }
            Self::Validator(validate) => validate(text, received).await,
        }
    }
}
