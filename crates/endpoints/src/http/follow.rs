//! `GET /jobs/{id}`: a job as it is now.

use async_endpoints_core::{JobId, store::Lookup};
use axum::{
    RequestExt,
    extract::{RawPathParams, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{headers, job, problem::Problem};
use crate::AsyncEndpoints;

pub(super) async fn job(endpoints: AsyncEndpoints, mut request: Request) -> Response {
    let trace = headers::trace(request.headers());
    let answer = async {
        let id = id(&mut request).await?;
        match endpoints.job(id).await? {
            Lookup::Found(job) if is_known(request.headers(), job.version) => {
                Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, job::etag(job.version))]).into_response())
            }
            Lookup::Found(job) => {
                let waiting = endpoints.fleet().waiting(&**endpoints.store(), &job).await;
                Ok(job::answer(&job, waiting))
            }
            Lookup::Gone { .. } => Err(Problem::expired()),
            Lookup::NotFound => Err(Problem::not_found()),
        }
    };
    let answer = answer.await;
    answer.unwrap_or_else(|problem: Problem| problem.traced(trace.as_ref()).into_response())
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
