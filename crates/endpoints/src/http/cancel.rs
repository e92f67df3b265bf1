//! `POST /jobs/{id}/cancel`: cancel a job that waits, or ask for it if it runs.

use async_endpoints_core::store::Cancel;
use axum::{http::StatusCode, response::Response};

use super::{
    call::{Call, in_time},
    problem::Problem,
};

pub(super) async fn cancel(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let canceled = in_time(async {
        call.own(id).await?;
        Ok(call.endpoints.cancel(id).await?)
    });
    match canceled.await? {
        Cancel::Canceled(job) => Ok(call.status(&job, StatusCode::OK).await),
        Cancel::Requested(job) => Ok(call.status(&job, StatusCode::ACCEPTED).await),
        Cancel::Terminal(job) => Err(Problem::ended(job.status.as_str())),
        Cancel::Gone { owner } => Err(call.gone(owner)),
        Cancel::NotFound => Err(Problem::not_found()),
    }
}
