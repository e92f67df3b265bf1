//! Answers that an application may replace.

use axum::response::Response;

use super::{job::JobDocument, problem::Problem};

/// Replaces answers, or adds to them. Each method is given the answer as it would be sent, with its status, headers and
/// body; without a method of your own it is sent as it is.
///
/// ```
/// # use async_endpoints::{Responses, JobDocument, axum::response::Response};
/// struct Stamped;
///
/// impl Responses for Stamped {
///     fn submitted(&self, job: &JobDocument<'_>, mut answer: Response) -> Response {
///         tracing::info!(job_id = %job.view().id, "submitted");
///         answer.headers_mut().insert("x-service", "printing".parse().unwrap());
///         answer
///     }
/// }
/// ```
///
/// Replaced answers are the application's: `/openapi.json` keeps describing ours.
pub trait Responses: Send + Sync + 'static {
    /// A job was accepted, or had been before: `202`, or `200` if the client waited for its end.
    fn submitted(&self, job: &JobDocument<'_>, answer: Response) -> Response {
        let _ = job;
        answer
    }

    /// A job was asked for, or canceled; or there is none to tell about.
    fn status(&self, job: Result<&JobDocument<'_>, &Problem>, answer: Response) -> Response {
        let _ = job;
        answer
    }

    /// A submission was refused. Not called for what a validator answers: that is the application's own.
    fn submission_error(&self, problem: &Problem, answer: Response) -> Response {
        let _ = problem;
        answer
    }

    /// Any route could not do its work: the store is away, or a function of the application panicked.
    fn internal_error(&self, problem: &Problem, answer: Response) -> Response {
        let _ = problem;
        answer
    }
}

/// Every answer as it is.
pub(crate) struct Unchanged;

impl Responses for Unchanged {}
