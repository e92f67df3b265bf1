//! `GET /jobs/{id}`: a job as it is now, or as soon as it changed or ended.

use std::time::Duration;

use async_endpoints_core::{JobId, JobView, store::JobLookup};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

use super::{call::Call, headers, job, problem::Problem};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) async fn job(call: &Call) -> Result<Response, Problem> {
    let preferred = headers::prefer_wait(call.headers());
    let asked = headers::query_wait(call.query())?;
    let job = call.found(look(call, call.id()?, asked.or(preferred)).await?)?;
    let mut answer = if is_known(call.headers(), job.version) {
        job::not_modified(&job)
    } else {
        call.status(&job, StatusCode::OK).await
    };
    // The address says it more clearly than a header that may be there by default.
    prefer(&mut answer, preferred.filter(|_| asked.is_none()));
    Ok(answer)
}

/// The job now; with `wait`, as soon as it is not the version that the client has, or has ended if it has none. Nobody
/// waits for a job that is not theirs, or longer than they listen.
async fn look(call: &Call, id: JobId, wait: Option<u64>) -> Result<JobLookup, Problem> {
    let endpoints = &call.endpoints;
    let Some(seconds) = wait else { return Ok(endpoints.job(id).await?) };
    let conditional = call.headers().contains_key(header::IF_NONE_MATCH);
    let done = |job: &JobView| match conditional {
        _ if !call.sees.sees(job.owner) => true,
        true => !is_known(call.headers(), job.version),
        false => job.status.is_terminal(),
    };
    match call.unless_gone(endpoints.wait_until(id, Duration::from_secs(seconds), done)).await {
        Some(lookup) => Ok(lookup?),
        None => Ok(endpoints.job(id).await?),
    }
}

/// Answers depend on `Prefer`, and say which preference was honoured.
pub(super) fn prefer(response: &mut Response, wait: Option<u64>) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Prefer"));
    if let Some(value) = wait.and_then(|seconds| HeaderValue::try_from(format!("wait={seconds}")).ok()) {
        headers.insert(PREFERENCE_APPLIED, value);
    }
}

/// Whether the client says that it has this version.
fn is_known(headers: &HeaderMap, version: u64) -> bool {
    let tag = format!("\"{version}\"");
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|known| {
        // Entity tags are compared weakly here (RFC 9110, 13.1.2).
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}
