//! `GET /jobs/{id}/result`: the bare result of the handler.

use async_endpoints_core::{JobStatus, JobView, job::TraceContext};
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    call::Call,
    codes, headers, job,
    problem::{Problem, ProblemBody, json},
};

pub(super) async fn result(call: &Call) -> Result<Response, Problem> {
    let job = call.found(call.endpoints.job(call.id()?).await?)?;
    // Preconditions apply only to a result: the response to a failed job has no 2xx status (RFC 9110, 13.2.1).
    if job.status == JobStatus::Completed && headers::is_known(call.headers(), job.version) {
        return Ok(job::not_modified(&job, None));
    }
    let mut response = answer(&job, call);
    response.headers_mut().insert(header::ETAG, job::etag(job.version));
    Ok(response)
}

/// The result; for a failed or canceled job its error, with the error's status.
fn answer(job: &JobView, call: &Call) -> Response {
    match (job.status, &job.result, &job.error) {
        (JobStatus::Completed, Some(result), _) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(result.clone())).into_response()
        }
        (JobStatus::Failed | JobStatus::Canceled, _, Some(error)) => {
            let trace_id = job.trace.as_ref().map(TraceContext::trace_id);
            let body = ProblemBody::of_job(error, job.attempt, trace_id.as_deref(), call.is_operator());
            let mut response = json("application/problem+json", &body);
            *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
        _ => {
            let detail = format!("The job is {} and has no result yet.", job.status.as_str());
            let problem = codes::JOB_NOT_ENDED.with_detail(detail).traced();
            job::retry_after(job, call.endpoints.expected_wait(job))
                .into_iter()
                .fold(problem, Problem::with_retry_after)
                .into_response()
        }
    }
}
