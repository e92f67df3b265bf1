//! `GET /jobs/{id}/result`: what the handler returned, and nothing around it.

use async_endpoints_core::{JobStatus, JobView, store::Lookup};
use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    follow::id,
    headers, job,
    problem::{Problem, ProblemBody, json},
};
use crate::AsyncEndpoints;

pub(super) async fn result(endpoints: AsyncEndpoints, mut request: Request) -> Response {
    let trace = headers::trace(request.headers());
    let answer = async {
        let id = id(&mut request).await?;
        match endpoints.job(id).await? {
            Lookup::Found(job) => Ok(answer(&job)),
            Lookup::Gone { .. } => Err(Problem::expired()),
            Lookup::NotFound => Err(Problem::not_found()),
        }
    };
    answer.await.unwrap_or_else(|problem: Problem| problem.traced(trace.as_ref()).into_response())
}

/// The bare result; for a job that has none, why not, with the status that a synchronous endpoint would have sent.
fn answer(job: &JobView) -> Response {
    let mut response = match (job.status, &job.result, &job.error) {
        (JobStatus::Completed, Some(result), _) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(result.clone())).into_response()
        }
        (JobStatus::Failed | JobStatus::Canceled, _, Some(error)) => {
            let body = ProblemBody::of_job(error, job.attempt, job.trace.as_ref());
            let mut response = json("application/problem+json", &body);
            *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
        _ => Problem::not_ended(job.status.as_str(), job::retry_after(job)).into_response(),
    };
    response.headers_mut().insert(header::ETAG, job::etag(job.version));
    response
}
