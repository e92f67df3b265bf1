//! `POST /jobs/{id}/retry`: for operators, a new job out of one that failed or was canceled.

use async_endpoints_core::store::{JobLookup, RetryOutcome};
use axum::{http::StatusCode, response::Response};

use super::{
    call::{Call, in_time},
    job,
    problem::Problem,
};
use crate::submit::SubmitError;

pub(super) async fn retry(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    if call.endpoints.is_shutting_down() {
        return Err(SubmitError::ShuttingDown.into());
    }
    let retried = in_time(async {
        call.own(id).await?;
        Ok(call.endpoints.retry_traced(id, call.trace.clone()).await?)
    });
    let (job, replayed) = match retried.await? {
        RetryOutcome::Created(job) => (job, false),
        RetryOutcome::Existing(JobLookup::Found(job)) => (job, true),
        RetryOutcome::Existing(_) => return Err(Problem::expired()),
        RetryOutcome::NotEnded(status) => return Err(Problem::not_retryable(status.as_str())),
        // Ids are random: a repeat of the request finds another.
        RetryOutcome::Conflict => return Err(Problem::internal()),
        RetryOutcome::Gone { owner } => return Err(call.gone(owner)),
        RetryOutcome::NotFound => return Err(Problem::not_found()),
    };
    let document = call.document(&job).await;
    let ours = || job::accepted(&document, StatusCode::ACCEPTED, replayed);
    let responses = &call.endpoints.face().responses;
    Ok(super::replaced(ours, |answer| responses.submitted(&call.head, &document, answer)))
}
