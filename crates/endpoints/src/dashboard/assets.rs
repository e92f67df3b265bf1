//! The files that the binary contains. Their paths have a hash of their content, so browsers keep them and never ask again.

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::http::{accepts_gzip, gzip};

struct Asset {
    /// `dashboard-1f3a5c7e.js`.
    name: String,
    content_type: &'static str,
    bytes: &'static [u8],
    compressed: Option<Bytes>,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let compressed = gzip(bytes).map(Bytes::from);
        Self { name: format!("{stem}-{hash}.{extension}"), content_type, bytes, compressed }
    }
}

/// One module of several parts, so that a page loads one file.
const SCRIPT: &str = concat!(
    include_str!("assets/times.js"),
    include_str!("assets/chart.js"),
    include_str!("assets/merge.js"),
    include_str!("assets/live.js"),
    include_str!("assets/views.js"),
    include_str!("assets/keys.js"),
);

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("dashboard", "css", "text/css; charset=utf-8", include_bytes!("assets/dashboard.css")),
        Asset::new("dashboard", "js", "text/javascript; charset=utf-8", SCRIPT.as_bytes()),
        Asset::new("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

/// The path of the style sheet below `/dashboard`.
pub(super) fn style() -> String {
    path(0)
}

/// The path of the script below `/dashboard`.
pub(super) fn script() -> String {
    path(1)
}

/// The path of the icon below `/dashboard`.
pub(super) fn icon() -> String {
    path(2)
}

fn path(asset: usize) -> String {
    format!("/assets/{}", ASSETS[asset].name)
}

/// The file with this name. `None` if there is none, or if it has another content.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let compressed = asset.compressed.clone().filter(|_| accepts_gzip(headers));
    let coding = compressed.is_some().then(|| HeaderValue::from_static("gzip"));
    let body = compressed.unwrap_or(Bytes::from_static(asset.bytes));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    let mut response = (StatusCode::OK, head, Body::from(body)).into_response();
    if let Some(coding) = coding {
        response.headers_mut().insert(header::CONTENT_ENCODING, coding);
    }
    Some(response)
}
