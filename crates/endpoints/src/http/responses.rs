//! Response hooks of the application, and the protection against their panics.

use std::{any::Any, panic::AssertUnwindSafe};

use async_trait::async_trait;
use axum::{
    http::request::Parts,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use super::{codes, document::JobDocument, problem::Problem};
use crate::{panics, telemetry::events as log};

/// Replaces or extends the library's responses. Each method receives the request head and the response as it would be
/// sent, with status, headers and body. The default methods return the response unchanged.
///
/// ```
/// # use async_endpoints::{JobDocument, Responses, async_trait, axum::{http::request::Parts, response::Response}};
/// struct Stamped;
///
/// #[async_trait]
/// impl Responses for Stamped {
///     async fn submitted(&self, request: &Parts, job: &JobDocument<'_>, mut response: Response) -> Response {
///         tracing::info!(path = request.uri.path(), job_id = %job.view().id, "submitted");
///         response.headers_mut().insert("x-service", "printing".parse().unwrap());
///         response
///     }
/// }
/// ```
///
/// `/openapi.json` describes the library's responses, not the replacements. If a method panics, the library's response is
/// sent. A slow method delays its response; the job runs meanwhile.
#[async_trait]
pub trait Responses: Send + Sync + 'static {
    /// A job was accepted or replayed: `202`, or `200` if the job ended while the client waited.
    async fn submitted(&self, request: &Parts, job: &JobDocument<'_>, response: Response) -> Response {
        let _ = (request, job);
        response
    }

    /// A job was read or canceled; or the request failed with a problem.
    async fn status(&self, request: &Parts, job: Result<&JobDocument<'_>, &Problem>, response: Response) -> Response {
        let _ = (request, job);
        response
    }

    /// A submission was refused, by the library or by a validator that returned a [`Problem`]. Not called for other
    /// responses of a validator.
    async fn submission_error(&self, request: &Parts, problem: &Problem, response: Response) -> Response {
        let _ = (request, problem);
        response
    }

    /// A server error on any route: the store is unavailable, or a function of the application panicked.
    async fn internal_error(&self, request: &Parts, problem: &Problem, response: Response) -> Response {
        let _ = (request, problem);
        response
    }
}

/// The application's hooks, if it has any.
#[derive(Default)]
pub(crate) struct Hooks(Option<Box<dyn Responses>>);

impl Hooks {
    pub(crate) fn new(responses: impl Responses) -> Self {
        Self(Some(Box::new(responses)))
    }

    /// Applies a hook to a response. If the hook panics, the response is made again and sent unchanged: a client must learn of
    /// a job that was stored.
    pub(super) async fn apply<'a, F: Future<Output = Response>>(
        &'a self,
        response: impl Fn() -> Response,
        hook: impl FnOnce(&'a dyn Responses, Response) -> F,
    ) -> Response {
        let Some(responses) = self.0.as_deref() else { return response() };
        let hooked = AssertUnwindSafe(hook(responses, response())).catch_unwind().await;
        hooked.unwrap_or_else(|panic| {
            log::internal("the application's responses panicked", &panics::message(&*panic));
            response()
        })
    }

    /// The response when a function of the application panicked.
    pub(super) async fn panicked(&self, head: &Parts, panic: Box<dyn Any + Send>) -> Response {
        log::internal("the application's code panicked while a request was answered", &panics::message(&*panic));
        let problem = Problem::from(codes::INTERNAL_ERROR).traced();
        let response = || problem.clone().into_response();
        self.apply(response, |hooks, response| hooks.internal_error(head, &problem, response)).await
    }
}
