//! `GET /jobs/{id}`: the job as it is now, or as soon as it has changed or ended.

use std::time::Duration;

use async_endpoints_core::{JobId, JobView, store::JobLookup};
use axum::{
    http::{StatusCode, header},
    response::Response,
};

use super::{call::Call, headers, job, problem::Problem};

pub(super) async fn get(call: &Call) -> Result<Response, Problem> {
    let preferred = headers::prefer_wait(call.headers());
    let requested = headers::query_wait(call.query())?;
    let job = call.found(lookup(call, call.id()?, requested.or(preferred)).await?)?;
    let mut response = if headers::is_known(call.headers(), job.version) {
        job::not_modified(&job, call.endpoints.expected_wait(&job))
    } else {
        call.job_response(&job, StatusCode::OK).await
    };
    // The query parameter has precedence: some clients send `Prefer` by default.
    job::set_preference(&mut response, preferred.filter(|_| requested.is_none()));
    Ok(response)
}

/// Reads the job. With `wait`, in seconds: waits until the job has ended or, with `If-None-Match`, until the version
/// differs. A job of another owner ends the wait.
async fn lookup(call: &Call, id: JobId, wait: Option<u64>) -> Result<JobLookup, Problem> {
    let Some(seconds) = wait else { return Ok(call.endpoints.job(id).await?) };
    let conditional = call.headers().contains_key(header::IF_NONE_MATCH);
    let done = |job: &JobView| match conditional {
        _ if !call.sees(job.owner) => true,
        true => !headers::is_known(call.headers(), job.version),
        false => job.status.is_terminal(),
    };
    Ok(call.endpoints.wait_until(id, Duration::from_secs(seconds), done).await?)
}
