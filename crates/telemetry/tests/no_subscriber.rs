//! Without a subscriber, log lines are not wanted. Alone in its process, because subscribers of other tests count too.

use async_endpoints_telemetry::{capture::set_min_level, is_logging};
use tracing::level_filters::LevelFilter;

#[test]
fn capture_level_without_subscriber_enables_no_lines() {
    set_min_level(LevelFilter::INFO);
    assert!(!is_logging());
}
