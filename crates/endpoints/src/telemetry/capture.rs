//! Captured log lines: what a handler logs with `tracing` is kept with its job.

use std::sync::{Arc, OnceLock};

use async_endpoints_core::job::LogLine;
use async_endpoints_telemetry::{
    Scope,
    capture::{CapturedLine, LineSink, set_min_level, with_sink},
};
use tracing::{Metadata, level_filters::LevelFilter};

use crate::{log_buffer::is_own, options::CaptureLevel, progress::ProgressReporter};

/// Captures the events of attempts at or above a level.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Capture(LevelFilter);

impl Capture {
    pub(crate) fn new(level: CaptureLevel) -> Self {
        let level = match level {
            CaptureLevel::Off => LevelFilter::OFF,
            CaptureLevel::Error => LevelFilter::ERROR,
            CaptureLevel::Warn => LevelFilter::WARN,
            CaptureLevel::Info => LevelFilter::INFO,
            CaptureLevel::Debug => LevelFilter::DEBUG,
            CaptureLevel::Trace => LevelFilter::TRACE,
        };
        set_min_level(level);
        Self(level)
    }

    /// Makes the scope of an attempt. Also returns the sink of its events; none if no subscriber captures.
    pub(crate) fn scope(self, make: impl FnOnce() -> Scope) -> (Scope, Option<Arc<AttemptSink>>) {
        let mut made = None;
        let sink = || made.insert(Arc::new(AttemptSink { level: self.0, reporter: OnceLock::new() })).clone();
        let scope = with_sink(sink, make);
        (scope, made)
    }
}

/// Receives the events inside an attempt's span.
pub(crate) struct AttemptSink {
    level: LevelFilter,
    /// Unset until the attempt starts.
    reporter: OnceLock<ProgressReporter>,
}

impl AttemptSink {
    pub(crate) fn report_to(&self, reporter: &ProgressReporter) {
        let _ = self.reporter.set(reporter.clone());
    }
}

impl LineSink for AttemptSink {
    /// The library's own events are not the handler's. Those that explain an attempt are added with
    /// [`own_line`](crate::log_buffer::own_line).
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && !is_own(metadata.target())
    }

    fn receive(&self, line: CapturedLine) {
        let Some(reporter) = self.reporter.get() else { return };
        let CapturedLine { time, level, target, message, fields } = line;
        let (timestamp, level, target) = (time.into(), level.as_str().into(), Some(target));
        reporter.log(LogLine { line: 0, attempt: 0, timestamp, level, target, message, fields });
    }
}
