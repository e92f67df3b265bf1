//! `GET /ops/failures`: the failed jobs of a window, grouped by type and error code.

use std::time::Duration;

use axum::response::Response;

use super::{call::Call, ops::document, problem::Problem, query};

/// The window without a parameter, in seconds.
const WINDOW: u64 = 60 * 60;
/// The longest window, in seconds: 31 days.
const LONGEST: u64 = 31 * 24 * 60 * 60;

pub(super) async fn failures(call: &Call) -> Result<Response, Problem> {
    Ok(document(&call.endpoints.failures(window(call.query())?).await?))
}

/// The parameter `window`, in seconds.
fn window(query: &str) -> Result<Duration, Problem> {
    let [window] = query::read(query, ["window"])?;
    let seconds = window.map_or(Ok(WINDOW), |text| query::number("window", &text, 1..=LONGEST))?;
    Ok(Duration::from_secs(seconds))
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
