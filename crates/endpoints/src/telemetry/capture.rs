//! Captured log lines: what a handler logs with `tracing` is kept with its job.

use std::sync::Arc;

use async_endpoints_core::job::LogLine;
use async_endpoints_telemetry::capture::{self, CapturedLine, LineSink};
use tracing::{Metadata, level_filters::LevelFilter};

use crate::{log_buffer::is_own, progress::ProgressReporter};

/// Captures the events inside an attempt's span at or above a level.
pub(crate) struct AttemptSink {
    reporter: ProgressReporter,
    level: LevelFilter,
}

impl LineSink for AttemptSink {
    /// The library's own events are not the handler's. Those that explain an attempt are added with
    /// [`own_line`](crate::log_buffer::own_line).
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && !is_own(metadata.target())
    }

    fn receive(&self, line: CapturedLine) {
        let CapturedLine { time, level, target, message, fields } = line;
        self.reporter.log(LogLine {
            line: 0,
            attempt: 0,
            timestamp: time.into(),
            level: level.as_str().into(),
            target: Some(target),
            message,
            fields,
        });
    }
}

/// Makes an attempt's span, whose events are captured.
pub(crate) fn captured<T>(reporter: &ProgressReporter, level: LevelFilter, make_span: impl FnOnce() -> T) -> T {
    capture::with_sink(|| Arc::new(AttemptSink { reporter: reporter.clone(), level }), make_span)
}
