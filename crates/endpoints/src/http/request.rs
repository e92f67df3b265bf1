//! `GET /jobs/{id}/request`: the stored request of a job, for operators, if the application shows requests.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use super::{
    call::Call,
    codes,
    problem::{Problem, json},
};
use crate::{request::RequestLookup, store_call::within};

pub(super) async fn request(call: &Call) -> Result<Response, Problem> {
    let id = call.id()?;
    let lookup = within::<_, Problem>(async {
        call.found(call.endpoints.job(id).await?)?;
        Ok(call.endpoints.request(id).await?)
    });
    match lookup.await? {
        RequestLookup::Found(request) => {
            let mut response = json("application/json", &*request);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        RequestLookup::NotExposed => Err(codes::REQUEST_NOT_EXPOSED.into()),
        RequestLookup::NotKept => Err(codes::REQUEST_NOT_KEPT.into()),
    }
}
