//! `GET /jobs/{id}`: a job as it is now, or as soon as it changed or ended.

use std::time::Duration;

use async_endpoints_core::{JobId, JobView, store::Lookup};
use axum::{
    RequestExt,
    extract::{RawPathParams, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{headers, job, problem::Problem};
use crate::AsyncEndpoints;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) async fn job(endpoints: AsyncEndpoints, mut request: Request) -> Response {
    let trace = headers::trace(request.headers());
    let answer = async {
        let id = id(&mut request).await?;
        let preferred = headers::prefer_wait(request.headers());
        let wait = headers::query_wait(request.uri().query().unwrap_or_default())?.or(preferred);
        let mut answer = match look(&endpoints, id, request.headers(), wait).await? {
            Lookup::Found(job) if is_known(request.headers(), job.version) => {
                (StatusCode::NOT_MODIFIED, [(header::ETAG, job::etag(job.version))]).into_response()
            }
            Lookup::Found(job) => {
                let waiting = endpoints.waiting(&job).await;
                job::answer(&job, waiting)
            }
            Lookup::Gone { .. } => return Err(Problem::expired()),
            Lookup::NotFound => return Err(Problem::not_found()),
        };
        prefer(&mut answer, preferred);
        Ok(answer)
    };
    answer.await.unwrap_or_else(|problem: Problem| problem.traced(trace.as_ref()).into_response())
}

/// The job now; with `wait`, as soon as it is not the version that the client has, or has ended if it has none.
async fn look(
    endpoints: &AsyncEndpoints,
    id: JobId,
    headers: &HeaderMap,
    wait: Option<u64>,
) -> Result<Lookup, Problem> {
    let Some(seconds) = wait else { return Ok(endpoints.job(id).await?) };
    let patience = Duration::from_secs(seconds);
    let conditional = headers.contains_key(header::IF_NONE_MATCH);
    let done = |job: &JobView| match conditional {
        true => !is_known(headers, job.version),
        false => job.status.is_terminal(),
    };
    Ok(endpoints.wait_until(id, patience, done).await?)
}

/// Answers depend on `Prefer`, and say which preference was honoured.
pub(super) fn prefer(response: &mut Response, wait: Option<u64>) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Prefer"));
    if let Some(value) = wait.and_then(|seconds| HeaderValue::try_from(format!("wait={seconds}")).ok()) {
        headers.insert(PREFERENCE_APPLIED, value);
    }
}

/// The job's id in the path; what is no id is no job.
pub(super) async fn id(request: &mut Request) -> Result<JobId, Problem> {
    let params = request.extract_parts::<RawPathParams>().await.map_err(|_| Problem::not_found())?;
    let id = params.iter().find(|(name, _)| *name == "id").and_then(|(_, value)| value.parse().ok());
    id.ok_or_else(Problem::not_found)
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
