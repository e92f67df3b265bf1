//! `GET /metrics` (Prometheus).

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

use super::{call::Call, codes, compression::compressed, headers, problem::Problem};
use crate::telemetry::{Format, events as log};

const OPENMETRICS: &str = "application/openmetrics-text";
const TEXT: &str = "text/plain";

/// The metrics of this process, and the gauges of the store.
pub(super) async fn metrics(call: &Call) -> Result<Response, Problem> {
    let format = format(call.headers());
    // The route exists only with telemetry.
    let Some(scraped) = call.endpoints.scrape(format).await else { return Err(codes::JOB_NOT_FOUND.into()) };
    let text = scraped.map_err(|error| {
        log::internal("metrics cannot be collected", &error);
        Problem::from(codes::INTERNAL_ERROR)
    })?;
    let mut response = compressed(text, call.headers());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The accepted format with the highest quality, among the versions that are supported; else the text format.
fn format(headers: &HeaderMap) -> Format {
    let known = headers::list(headers, header::ACCEPT).filter(|range| is_known(range));
    match headers::best_of(known, &[TEXT, OPENMETRICS]) {
        Some(OPENMETRICS) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

fn is_known(range: &str) -> bool {
    let mut parts = headers::split(range, ';');
    let is_openmetrics = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(OPENMETRICS));
    let expected = if is_openmetrics { "1.0.0" } else { "0.0.4" };
    parts
        .filter_map(|part| part.split_once('='))
        .all(|(name, value)| !name.trim().eq_ignore_ascii_case("version") || value.trim().trim_matches('"') == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a value"))])
    }

    #[test]
    fn format_follows_quality_and_version() {
        const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                                    q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                                    text/plain;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3";
        assert_eq!(format(&HeaderMap::new()), Format::Text);
        for (accept, expected) in [
            (PROMETHEUS_2, Format::OpenMetrics),
            (PROMETHEUS_3, Format::OpenMetrics),
            ("*/*", Format::Text),
            ("text/html", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.3", Format::Text),
            ("text/plain;version=1.0.0;q=0.9,application/openmetrics-text;q=0.1", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("Application/OpenMetrics-Text; Version=1.0.0", Format::OpenMetrics),
            (r#"application/openmetrics-text;version="1.0.0""#, Format::OpenMetrics),
            (r#"text/plain;x=",";q=0.1, application/openmetrics-text"#, Format::OpenMetrics),
        ] {
            assert_eq!(format(&with(header::ACCEPT, accept)), expected, "{accept}");
        }
    }
}
