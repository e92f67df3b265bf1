//! `POST /jobs/{id}/cancel`: cancels a waiting job, or requests it of a running one.

use async_endpoints_core::store::CancelOutcome;
use axum::{http::StatusCode, response::Response};

use super::{call::Call, codes, problem::Problem};
use crate::store_call::within;

pub(super) async fn cancel(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let canceled = within::<_, Problem>(async {
        call.check_changeable(id).await?;
        Ok(call.endpoints.cancel(id).await?)
    });
    match canceled.await? {
        CancelOutcome::Canceled(job) => Ok(call.job_response(&job, StatusCode::OK).await),
        CancelOutcome::Requested(job) => Ok(call.job_response(&job, StatusCode::ACCEPTED).await),
        CancelOutcome::Terminal(job) => {
            let detail = format!("The job is {} and can no longer be canceled.", job.status.as_str());
            Err(codes::JOB_ENDED.with_detail(detail))
        }
        CancelOutcome::Gone { owner } => Err(call.gone(owner)),
        CancelOutcome::NotFound => Err(codes::JOB_NOT_FOUND.into()),
    }
}
