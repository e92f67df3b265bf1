//! `GET /ops/failures`: the failed jobs of a window, grouped by type and error code.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::Response,
};

use super::{
    call::Call,
    codes,
    problem::{Problem, json},
};

/// The window without a parameter, in seconds.
const WINDOW: u64 = 60 * 60;
/// The longest window, in seconds: 31 days.
const LONGEST: u64 = 31 * 24 * 60 * 60;

pub(super) async fn failures(call: &Call) -> Result<Response, Problem> {
    let failures = call.endpoints.failures(window(call.query())?).await?;
    let mut response = json("application/json", &failures);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The parameter `window`, in seconds.
fn window(query: &str) -> Result<Duration, Problem> {
    let mut seconds = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "window" {
            return Err(codes::INVALID_QUERY.with_detail(format!("{name:?} is unknown: expected window.")));
        }
        let is_number = value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|number| is_number && (1..=LONGEST).contains(number));
        let invalid = || codes::INVALID_QUERY.with_detail(format!("window must be 1 to {LONGEST} seconds."));
        if seconds.replace(number.ok_or_else(invalid)?).is_some() {
            return Err(codes::INVALID_QUERY.with_detail("window must occur once."));
        }
    }
    Ok(Duration::from_secs(seconds.unwrap_or(WINDOW)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_seconds_within_bounds() {
        let read = |query: &str| window(query).map(|window| window.as_secs()).ok();
        assert_eq!((read(""), read("window=60"), read("window=2678400")), (Some(3600), Some(60), Some(2_678_400)));
        for bad in ["window=", "window=0", "window=-1", "window=%2B1", "window=2678401", "window=1&window=1", "x=1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
