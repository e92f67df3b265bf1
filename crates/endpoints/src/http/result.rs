//! `GET /jobs/{id}/result`: what the handler returned, and nothing around it.

use async_endpoints_core::{JobStatus, JobView};
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    call::Call,
    job,
    problem::{Problem, ProblemBody, json},
};

pub(super) async fn result(call: &Call) -> Result<Response, Problem> {
    let job = call.found(call.endpoints.job(call.id()?).await?)?;
    let mut response = answer(&job, call);
    response.headers_mut().insert(header::ETAG, job::etag(job.version));
    Ok(response)
}

/// The bare result; for a job that has none, why not, with the status that a synchronous endpoint would have sent.
fn answer(job: &JobView, call: &Call) -> Response {
    match (job.status, &job.result, &job.error) {
        (JobStatus::Completed, Some(result), _) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(result.clone())).into_response()
        }
        (JobStatus::Failed | JobStatus::Canceled, _, Some(error)) => {
            let body = ProblemBody::of_job(error, job.attempt, job.trace.as_ref());
            let mut response = json("application/problem+json", &body);
            *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
        _ => {
            let problem = Problem::not_ended(job.status.as_str(), job::retry_after(job));
            problem.traced(call.trace.as_ref()).into_response()
        }
    }
}
