//! A request on its way to become a job, as the application's validators see it. Must not know stores.

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use async_endpoints_core::Priority;
use axum::{
    http::{Extensions, HeaderMap, Method, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{envelope::RequestParts, http::Problem, json};

/// A request that is about to be stored as a job.
pub struct Submission<Req> {
    request: Req,
    sent: Sent,
    wishes: Wishes,
}

/// What came with a body.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) head: Arc<Parts>,
    pub(crate) parts: RequestParts,
}

/// What a validator would have otherwise than the job type says.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) priority: Option<Priority>,
    pub(crate) delay: Option<Duration>,
    pub(crate) headers: Vec<(String, String)>,
}

impl<Req> Submission<Req> {
    /// The body. It is stored as it was sent: there is no way to change it here.
    pub fn request(&self) -> &Req {
        &self.request
    }

    /// Every header, not only those that a handler will see.
    pub fn headers(&self) -> &HeaderMap {
        &self.sent.head.headers
    }

    /// The text of a header; none if it is not there or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// A parameter of the path.
    pub fn path_param(&self, name: &str) -> Option<&str> {
        value(&self.sent.parts.path, name)
    }

    /// A parameter of the query, the first of that name.
    pub fn query_param(&self, name: &str) -> Option<&str> {
        value(&self.sent.parts.query, name)
    }

    /// What the application's layers know of the request.
    pub fn extensions(&self) -> &Extensions {
        &self.sent.head.extensions
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.sent.head.method
    }

    /// The address, without a prefix that the endpoint is mounted under.
    pub fn uri(&self) -> &Uri {
        &self.sent.head.uri
    }

    /// Goes before or after others of its type.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.wishes.priority = Some(priority);
        self
    }

    /// May not start before that time has passed.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.wishes.delay = Some(delay);
        self
    }

    /// What the handler finds as `ctx.header(name)`, in place of what the client sent: a user whom a layer found, for
    /// example. Counts among the 8 KiB of captured headers.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.wishes.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }
}

impl<Req: fmt::Debug> fmt::Debug for Submission<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, sent, wishes } = self;
        f.debug_struct("Submission")
            .field("request", request)
            .field("uri", &sent.head.uri)
            .field("wishes", wishes)
            .finish_non_exhaustive()
    }
}

fn value<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// How a body is looked at before it is stored.
pub(crate) enum Check {
    /// It has the shape of the type's request.
    Shape(fn(&str) -> Result<(), String>),
    /// And the application lets it pass.
    Validated(Arc<Validate>),
}

pub(crate) type Validate =
    dyn Fn(&str, Sent) -> BoxFuture<'static, Result<(Wishes, Sent), Refusal>> + Send + Sync + 'static;

/// Why a submission goes no further.
pub(crate) enum Refusal {
    /// The body does not fit the type, and where.
    Shape(String),
    /// What the application says against it, in our words.
    Problem(Problem),
    /// What it answers in its own.
    Answer(Response),
}

impl Refusal {
    fn of<E: IntoResponse + 'static>(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Problem>() {
            Some(problem) => Self::Problem(problem.clone()),
            None => Self::Answer(error.into_response()),
        }
    }
}

impl Check {
    pub(crate) fn validated<Req, F, Fut, E>(bodiless: bool, check: F) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        F: Fn(Submission<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Submission<Req>, E>> + Send,
        E: IntoResponse + 'static,
    {
        let check = Arc::new(check);
        Self::Validated(Arc::new(move |body, sent| {
            let read = match bodiless {
                true => json::is_any(body).and_then(|()| json::read_with_path::<Req>("null")),
                false => json::read_with_path::<Req>(body),
            };
            let check = check.clone();
            Box::pin(async move {
                let request = read.map_err(Refusal::Shape)?;
                let submission = Submission { request, sent, wishes: Wishes::default() };
                let checked = check(submission).await;
                let Submission { sent, wishes, .. } = checked.map_err(Refusal::of)?;
                Ok((wishes, sent))
            })
        }))
    }
}
