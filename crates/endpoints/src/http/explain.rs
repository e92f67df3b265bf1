//! `GET /jobs/{id}/explain`: why a job waits, where it runs, or why it ended as it did.

use axum::response::Response;

use super::{
    call::Call,
    problem::{Problem, json},
};
use crate::{explain::Viewer, store_call::within};

pub(super) async fn explain(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let viewer = if call.is_operator() { Viewer::Operator } else { Viewer::Caller };
    let explained = within::<_, Problem>(async {
        let job = call.found(call.endpoints.job(id).await?)?;
        Ok(call.endpoints.explain_to(&job, viewer).await?)
    });
    Ok(json("application/json", &explained.await?))
}
