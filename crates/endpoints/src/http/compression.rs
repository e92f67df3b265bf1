//! Responses compressed by gzip.

use std::io::Write;

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};

use super::headers;

/// The text, compressed if the client accepts that: about a tenth of the size.
pub(crate) fn compressed(text: String, accepted: &HeaderMap) -> Response {
    let bytes = if accepts_gzip(accepted) { encode(text.as_bytes(), Compression::fast()) } else { None };
    match bytes {
        Some(bytes) => ([(header::CONTENT_ENCODING, "gzip")], Body::from(bytes)).into_response(),
        None => Body::from(text).into_response(),
    }
}

/// The bytes, compressed as much as possible. For files that are compressed once.
#[cfg(feature = "dashboard")]
pub(crate) fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    encode(bytes, Compression::best())
}

/// Whether the client accepts gzip.
pub(crate) fn accepts_gzip(accepted: &HeaderMap) -> bool {
    headers::list(accepted, header::ACCEPT_ENCODING).any(|coding| {
        let mut parts = headers::split(coding, ';');
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && parts.find_map(headers::quality).is_none_or(|quality| quality > 0.0)
    })
}

fn encode(bytes: &[u8], level: Compression) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), level);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_when_accepted() {
        for (coding, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;Q=0", false),
            ("br", false),
            ("identity", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, coding.parse().expect("a value"))]);
            assert_eq!(accepts_gzip(&headers), expected, "{coding}");
        }
    }
}
