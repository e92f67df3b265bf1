//! `POST /jobs/{id}/cancel`: cancel a job that waits, or ask for it if it runs.

use async_endpoints_core::store::Cancel;
use axum::{
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{body, follow::id, headers, job, problem::Problem};
use crate::AsyncEndpoints;

pub(super) async fn cancel(endpoints: AsyncEndpoints, mut request: Request) -> Response {
    let trace = headers::trace(request.headers());
    let answer = async {
        let id = id(&mut request).await;
        body::drain(request.into_body()).await;
        let id = id?;
        match endpoints.cancel(id).await? {
            Cancel::Canceled(job) => Ok(job::answer(&job, None)),
            Cancel::Requested(job) => {
                let mut response = job::answer(&job, None);
                *response.status_mut() = StatusCode::ACCEPTED;
                Ok(response)
            }
            Cancel::Terminal(job) => Err(Problem::ended(job.status.as_str())),
            Cancel::Gone { .. } => Err(Problem::expired()),
            Cancel::NotFound => Err(Problem::not_found()),
        }
    };
    answer.await.unwrap_or_else(|problem: Problem| problem.traced(trace.as_ref()).into_response())
}
