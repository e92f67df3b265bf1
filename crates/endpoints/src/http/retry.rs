//! `POST /jobs/{id}/retry`, for operators and the job's owner: a new job with the request of a failed or canceled one.

use async_endpoints_core::store::{JobLookup, RetryOutcome};
use axum::{http::StatusCode, response::Response};

use super::{call::Call, codes, job, problem::Problem};
use crate::store_call::within;

pub(super) async fn retry(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    if call.endpoints.is_shutting_down() {
        return Err(codes::SHUTTING_DOWN.into());
    }
    let retried = within::<_, Problem>(async {
        call.check_changeable(id).await?;
        Ok(call.endpoints.retry(id).await?)
    });
    let (job, replayed) = match retried.await? {
        RetryOutcome::Created(job) => (job, false),
        RetryOutcome::Existing(JobLookup::Found(job)) => (job, true),
        RetryOutcome::Existing(_) => return Err(codes::JOB_EXPIRED.into()),
        RetryOutcome::NotEnded(status) => {
            let detail = format!("The job is {}. Only a failed or canceled job can be retried.", status.as_str());
            return Err(codes::JOB_NOT_RETRYABLE.with_detail(detail));
        }
        // The new id exists already. Ids are random, so a repeat of the request succeeds.
        RetryOutcome::Conflict => return Err(codes::INTERNAL_ERROR.into()),
        RetryOutcome::Gone { owner } => return Err(call.gone(owner)),
        RetryOutcome::NotFound => return Err(codes::JOB_NOT_FOUND.into()),
    };
    let document = call.document(&job).await;
    let response = || job::accepted(&document, StatusCode::ACCEPTED, replayed);
    let hooks = &call.config.responses;
    Ok(hooks.apply(response, |hooks, response| hooks.submitted(&call.head, &document, response)).await)
}
