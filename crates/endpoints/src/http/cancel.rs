//! `POST /jobs/{id}/cancel`: cancel a job that waits, or ask for it if it runs.

use async_endpoints_core::store::CancelOutcome;
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
        CancelOutcome::Canceled(job) => Ok(call.status(&job, StatusCode::OK).await),
        CancelOutcome::Requested(job) => Ok(call.status(&job, StatusCode::ACCEPTED).await),
        CancelOutcome::Terminal(job) => Err(Problem::ended(job.status.as_str())),
        CancelOutcome::Gone { owner } => Err(call.gone(owner)),
        CancelOutcome::NotFound => Err(Problem::not_found()),
    }
}
