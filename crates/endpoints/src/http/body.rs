//! The body of a submission: reading within limits, and checks before it is parsed as the request type.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::{
    codes::{self, ProblemKind},
    problem::Problem,
};
use crate::{
    json::{self, Misfit},
    time_limit::time_limit,
};

/// Maximum bytes of a body.
const LIMIT: usize = 1 << 20;
/// Bytes of a refused body that are read and discarded, so that the client can read the response.
const DRAINED: usize = 8 << 20;
/// Deadline for reading a whole body.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reads the body; empty if there is none. A body whose announced length is over the limit is refused without reading if
/// the client waits for `100 Continue`, or if the length is more than is ever drained.
pub(super) async fn read(body: Body, headers: &HeaderMap) -> Result<Bytes, Problem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let waits =
        headers.get(header::EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if announced > LIMIT + DRAINED || announced > LIMIT && waits {
        return Err(codes::BODY_TOO_LARGE.into());
    }
    let mut size = 0;
    match time_limit(DEADLINE, collect(body, &mut size)).await {
        Some(read) => read,
        None if size.max(announced) > LIMIT => Err(codes::BODY_TOO_LARGE.into()),
        None => Err(codes::BODY_TIMEOUT.into()),
    }
}

/// Reads and discards the body of a request that has no use for one.
pub(super) async fn drain(body: Body) {
    if body.is_end_stream() {
        return;
    }
    let drained = async {
        let mut chunks = body.into_data_stream();
        let mut size = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            size += chunk.len();
            if size > DRAINED {
                break;
            }
        }
    };
    time_limit(DEADLINE, drained).await;
}

async fn collect(body: Body, size: &mut usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut read = Bytes::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| codes::INVALID_BODY.with_detail(error.to_string()))?;
        *size += chunk.len();
        if *size <= LIMIT {
            // Most bodies come in one piece, which need not be copied.
            read = if read.is_empty() { chunk } else { joined(read, &chunk) };
        } else if *size > DRAINED {
            break;
        }
    }
    if *size > LIMIT {
        return Err(codes::BODY_TOO_LARGE.into());
    }
    Ok(read)
}

/// Appends a piece. Joined bytes are grown in place, without copying them for each piece.
fn joined(read: Bytes, piece: &[u8]) -> Bytes {
    let mut read = BytesMut::from(read);
    read.extend_from_slice(piece);
    read.freeze()
}

/// Checks that a body, if there is one, is declared as JSON, once and without content encoding.
pub(super) fn check_type(headers: &HeaderMap, bytes: &[u8]) -> Result<(), Problem> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (content_type, more) = (types.next(), types.next());
    if more.is_some() || !content_type.is_some_and(is_json) {
        let found = content_type.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"));
        let detail = format!("A body needs the content type application/json; it has {found}.");
        return Err(codes::UNSUPPORTED_MEDIA_TYPE.with_detail(detail));
    }
    let is_identity = |encoding: &&HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().find(|encoding| !is_identity(encoding)) {
        Some(encoding) => {
            let detail = format!("A body must have no content encoding; it has {encoding:?}.");
            Err(codes::UNSUPPORTED_MEDIA_TYPE.with_detail(detail))
        }
        None => Ok(()),
    }
}

/// The body as text, after the check of its depth; `null` for an empty body. The text may still be invalid JSON.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| codes::INVALID_JSON.with_detail(error.to_string()))?;
    if json::is_too_deep(bytes) {
        return Err(
            codes::INVALID_JSON.with_detail(format!("Values are nested deeper than {} levels.", json::MAX_DEPTH))
        );
    }
    Ok(if text.is_empty() { "null" } else { text })
}

/// The problem of a body that could not be parsed: invalid JSON, or JSON that does not fit the request type.
pub(super) fn parse_problem(text: &str, misfit: &Misfit) -> Problem {
    misfit_problem(codes::INVALID_REQUEST, text, misfit)
}

/// The problem of a body that could not be parsed: invalid JSON, or a problem of this kind.
pub(super) fn misfit_problem(kind: ProblemKind, text: &str, misfit: &Misfit) -> Problem {
    match json::check_syntax(text) {
        Ok(()) => kind.with_detail(misfit.to_string()).with_error(&misfit.pointer, &*misfit.reason),
        Err(error) => codes::INVALID_JSON.with_detail(error.to_string()),
    }
}

/// `application/json`, or a type based on it such as `application/merge-patch+json`.
fn is_json(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("application/") && essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn body_in_pieces_is_joined() {
        let pieces = ["[1", ",2", "]"].map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
        let body = Body::from_stream(stream::iter(pieces));
        assert_eq!(read(body, &HeaderMap::new()).await.ok(), Some(Bytes::from("[1,2]")));
    }
}
