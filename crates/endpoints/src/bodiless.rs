//! Responses whose status has no content.

use std::convert::Infallible;

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::Bytes;
use futures_util::stream;

/// Keeps `Content-Length` out of a response whose status has no content (RFC 9110, 8.6). Axum sets one for every body of known
/// length, also an empty one.
pub(crate) fn without_length(response: &mut Response) {
    if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status()) {
        *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    }
}
