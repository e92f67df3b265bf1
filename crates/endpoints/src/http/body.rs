//! The body of a submission: read within its limit, and found to be JSON before anything else looks at it.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::IgnoredAny;

use super::problem::Problem;
use crate::json;

/// Bytes a body may have.
const LIMIT: usize = 1 << 20;
/// Bytes of a refused body that are read and thrown away, so that the client gets to read the answer.
const DRAINED: usize = 8 << 20;
/// How long a whole body may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The body as bytes; empty if there is none. A client that says beforehand that it is too large, and waits for an answer
/// or has more to send than is ever read, is told at once.
pub(super) async fn read(body: Body, headers: &HeaderMap) -> Result<Bytes, Problem> {
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let waits =
        headers.get(header::EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if said > LIMIT + DRAINED || said > LIMIT && waits {
        return Err(Problem::too_large(LIMIT));
    }
    let mut size = 0;
    match in_time(collect(body, &mut size)).await {
        Some(read) => read,
        None if size.max(said) > LIMIT => Err(Problem::too_large(LIMIT)),
        None => Err(Problem::body_timeout()),
    }
}

/// Reads a body that nobody wants, as much as a client may still be writing.
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
    in_time(drained).await;
}

async fn collect(body: Body, size: &mut usize) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut read: Option<BytesMut> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::unreadable_body(error.to_string()))?;
        *size += chunk.len();
        if *size <= LIMIT {
            match &mut read {
                // Most bodies come in one piece, which need not be copied.
                None => read = Some(chunk.into()),
                Some(read) => read.extend_from_slice(&chunk),
            }
        } else if *size > DRAINED {
            break;
        }
    }
    if *size > LIMIT {
        return Err(Problem::too_large(LIMIT));
    }
    Ok(read.map(BytesMut::freeze).unwrap_or_default())
}

/// What comes of reading a body, unless its client takes its time.
async fn in_time<T>(read: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(DEADLINE, read).await.ok()
}

/// Whether a body, if there is one, says that it is JSON, once and as it is.
pub(super) fn check_type(headers: &HeaderMap, bytes: &[u8]) -> Result<(), Problem> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (content_type, more) = (types.next(), types.next());
    if more.is_some() || !content_type.is_some_and(is_json) {
        return Err(Problem::unsupported_media_type(content_type));
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Problem::unsupported_encoding(encoding)),
        _ => Ok(()),
    }
}

/// The body as text that may be JSON, nested no deeper than allowed; `null` if there is none.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| Problem::invalid_json(error.to_string()))?;
    if json::depth(bytes) > json::DEPTH {
        return Err(Problem::invalid_json(format!("Values are nested deeper than {}.", json::DEPTH)));
    }
    Ok(if text.is_empty() { "null" } else { text })
}

/// Why a text was not taken as a request: it is no JSON at all, or JSON that does not fit.
pub(super) fn misfit(text: &str, detail: String) -> Problem {
    match json::read::<IgnoredAny>(text) {
        Ok(_) => Problem::invalid_request(detail),
        Err(error) => Problem::invalid_json(error.to_string()),
    }
}

/// `application/json`, or a type that is written in it such as `application/merge-patch+json`.
fn is_json(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("application/") && essence.ends_with("+json")
}
