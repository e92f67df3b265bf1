//! `POST /jobs/{id}/retry`: for operators, a new job out of one that failed or was canceled.

use async_endpoints_core::store::{Lookup, Retry};
use axum::{
    http::{StatusCode, header},
    response::Response,
};

use super::{
    call::Call,
    job,
    problem::Problem,
    submit::{mark_replayed, name_job},
};
use crate::submit::SubmitError;

pub(super) async fn retry(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    call.own(id).await?;
    if call.endpoints.is_shutting_down() {
        return Err(SubmitError::ShuttingDown.into());
    }
    let (job, replayed) = match call.endpoints.retry_traced(id, call.trace.clone()).await? {
        Retry::Created(job) => (job, false),
        Retry::Existing(Lookup::Found(job)) => (job, true),
        Retry::Existing(_) => return Err(Problem::expired()),
        Retry::NotEnded(status) => return Err(Problem::not_retryable(status.as_str())),
        // Ids are random: a repeat of the request finds another.
        Retry::Conflict => return Err(Problem::internal()),
        Retry::Gone { owner } => return Err(call.gone(owner)),
        Retry::NotFound => return Err(Problem::not_found()),
    };
    let document = call.document(&job).await;
    let mut response = job::answer(&document);
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().entry(header::RETRY_AFTER).or_insert_with(|| 1.into());
    name_job(&mut response, &document);
    if replayed {
        mark_replayed(&mut response);
    }
    Ok(call.endpoints.face().responses.submitted(&call.head, &document, response))
}
