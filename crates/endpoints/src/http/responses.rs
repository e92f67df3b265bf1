//! Answers that an application may replace.

use axum::{http::request::Parts, response::Response};

use super::{document::JobDocument, problem::Problem};

/// Replaces answers, or adds to them. Each method is given the answer as it would be sent, with its status, headers and
/// body, and the request without its body; without a method of your own the answer is sent as it is.
///
/// ```
/// # use async_endpoints::{JobDocument, Responses, axum::{http::request::Parts, response::Response}};
/// struct Stamped;
///
/// impl Responses for Stamped {
///     fn submitted(&self, request: &Parts, job: &JobDocument<'_>, mut answer: Response) -> Response {
///         tracing::info!(path = request.uri.path(), job_id = %job.view().id, "submitted");
///         answer.headers_mut().insert("x-service", "printing".parse().unwrap());
///         answer
///     }
/// }
/// ```
///
/// Replaced answers are the application's: `/openapi.json` keeps describing ours.
pub trait Responses: Send + Sync + 'static {
    /// A job was accepted, or had been before: `202`, or `200` if the client waited for its end.
    fn submitted(&self, request: &Parts, job: &JobDocument<'_>, answer: Response) -> Response {
        let _ = (request, job);
        answer
    }

    /// A job was asked for, or canceled; or there is none to tell about.
    fn status(&self, request: &Parts, job: Result<&JobDocument<'_>, &Problem>, answer: Response) -> Response {
        let _ = (request, job);
        answer
    }

    /// A submission was refused, by the library or by a validator that answers with a [`Problem`]. Whatever else a
    /// validator answers is the application's own already.
    fn submission_error(&self, request: &Parts, problem: &Problem, answer: Response) -> Response {
        let _ = (request, problem);
        answer
    }

    /// Any route could not do its work: the store is away, or a function of the application panicked.
    fn internal_error(&self, request: &Parts, problem: &Problem, answer: Response) -> Response {
        let _ = (request, problem);
        answer
    }
}

/// Every answer as it is.
pub(crate) struct Unchanged;

impl Responses for Unchanged {}
