//! Panics as log lines.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic, thread,
};

use crate::panics::{keep_location, panic_message};

/// Replaces the panic hook by one that logs each panic as one line. The default hook writes to stderr itself, and waits for
/// a blocked one.
///
/// The line is the library's own, so that it is not captured: a job's log may be shown to callers, a panic's text must not.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        keep_location(panic);
        let thread = thread::current();
        let backtrace = Some(Backtrace::capture()).filter(|trace| trace.status() == BacktraceStatus::Captured);
        let backtrace = backtrace.map(|trace| trace.to_string());
        tracing::error!(
            target: "async_endpoints::panic",
            location = panic.location().map(tracing::field::display),
            thread = thread.name(),
            backtrace = backtrace.as_ref().map(|trace| after_panic_frames(trace).to_owned()),
            "panic: {}",
            panic_message(panic.payload()),
        );
    }));
}

/// The frames below those of this hook and of the panic itself. The whole text if it has no such frames, as without symbols.
fn after_panic_frames(backtrace: &str) -> &str {
    let Some(begin) = backtrace.find("rust_begin_unwind") else { return backtrace };
    let lines = backtrace[begin..].split_inclusive('\n').skip(1);
    let is_panic = |line: &&str| line.trim_start().starts_with("at ") || line.contains(" core::panicking::");
    let skipped: usize = lines.take_while(is_panic).map(str::len).sum();
    let first = backtrace[begin..].find('\n').map_or(backtrace.len(), |end| begin + end + 1);
    &backtrace[first + skipped..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backtrace_begins_at_the_panicking_code() {
        let below = "   5: app::render\n             at ./src/main.rs:7:9\n   6: main\n";
        let above = "   0: std::backtrace::Backtrace::create\n             at /rustc/library/std/src/backtrace.rs:1:2\n   \
                     3: __rustc::rust_begin_unwind\n             at /rustc/library/std/src/panicking.rs:1:2\n   \
                     4: core::panicking::panic_fmt\n             at /rustc/library/core/src/panicking.rs:1:2\n";
        assert_eq!(after_panic_frames(&format!("{above}{below}")), below);
        assert_eq!(after_panic_frames(below), below);
    }
}
